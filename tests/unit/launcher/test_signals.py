from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest

from launcher.checkout import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A launcher in small: it says when it is ready, and how it ended.
LISTENER = """
import time
from launcher.errors import StoppedError
from launcher.signals import StopSignals, watch_parent
signals = StopSignals()
signals.install()
try:
    watch_parent(is_make=True)
    print("ready", flush=True)
    time.sleep(600)
except StoppedError:
    signals.shield()
    print("stopped", flush=True)
"""


@contextlib.contextmanager
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start the listener by make, in a session of its own; gives make and what the listener says."""
    (tmp_path / "listener.py").write_text(LISTENER)
    (tmp_path / "Makefile").write_text(f"listen:\n\t@{sys.executable} {tmp_path}/listener.py\n")
    # what runs in the background of a shell ignores it, and so does all that it starts
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        ["make", "--no-print-directory", "-C", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "ready\n"
        yield process, process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_make_alone_stops_what_make_started(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (make, said):
        make.send_signal(number)
        assert said.readline() == "stopped\n"


@pytest.mark.timeout(60)
def test_a_terminals_ctrl_c_stops_it_once(tmp_path: Path) -> None:
    with started(tmp_path) as (make, said):
        os.killpg(make.pid, signal.SIGINT)
        assert said.read() == "stopped\n"
