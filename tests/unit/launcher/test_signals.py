from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from launcher.checkout import ROOT

if TYPE_CHECKING:
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


def start(tmp_path: Path) -> subprocess.Popen[str]:
    (tmp_path / "listener.py").write_text(LISTENER)
    (tmp_path / "Makefile").write_text(f"listen:\n\t@{sys.executable} {tmp_path}/listener.py\n")
    process = subprocess.Popen(
        ["make", "--no-print-directory", "-C", str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.timeout(60)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_to_make_alone_stops_what_make_started(tmp_path: Path, number: signal.Signals) -> None:
    make = start(tmp_path)
    assert make.stdout is not None
    with make:
        make.send_signal(number)
        assert make.stdout.readline() == "stopped\n"


@pytest.mark.timeout(60)
def test_a_terminals_ctrl_c_stops_it_once(tmp_path: Path) -> None:
    make = start(tmp_path)
    assert make.stdout is not None
    with make:
        os.killpg(make.pid, signal.SIGINT)
        assert make.stdout.read() == "stopped\n"
