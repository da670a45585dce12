from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from typing import IO, TYPE_CHECKING

import pytest

from launcher.paths import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# A minimal launcher, which prints when it is ready and how it ended.
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
    signals.ignore_signals()
    print("stopped", flush=True)
"""


@contextlib.contextmanager
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str]]]:
    """Start the listener by make in a new session; yields make and the listener's output."""
    (tmp_path / "listener.py").write_text(LISTENER)
    (tmp_path / "Makefile").write_text(f"listen:\n\t@{sys.executable} {tmp_path}/listener.py\n")
    # background jobs of a shell ignore SIGINT, and so do their children
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
def test_signal_to_make_alone_stops_the_launcher(tmp_path: Path, number: signal.Signals) -> None:
    with started(tmp_path) as (make, output):
        make.send_signal(number)
        assert output.readline() == "stopped\n"


@pytest.mark.timeout(60)
def test_ctrl_c_of_a_terminal_stops_the_launcher_once(tmp_path: Path) -> None:
    with started(tmp_path) as (make, output):
        os.killpg(make.pid, signal.SIGINT)
        assert output.read() == "stopped\n"
