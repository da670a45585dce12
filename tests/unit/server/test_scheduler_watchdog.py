"""The watchdog of a server's scheduler, with real processes that are healthy, unhealthy, or end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.samples import ROOT

# a program is healthy as long as a file exists
WATCH = """
from pathlib import Path
from server.airflow.scheduler_watchdog import watch
raise SystemExit(watch({command!r}, Path({flag!r}).exists, interval=0.05, timeout={timeout}, start_timeout={start}))
"""


def watched(tmp_path: Path, code: str, *, timeout: float = 0.3, start: float = 30.0) -> subprocess.Popen[str]:
    script = WATCH.format(
        command=(sys.executable, "-c", code), flag=str(tmp_path / "healthy"), timeout=timeout, start=start
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_watch_kills_an_unhealthy_command_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "healthy").touch()
    # it prints its child's id, and becomes unhealthy
    code = (
        "import os, pathlib, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        f"time.sleep(0.5); pathlib.Path({str(tmp_path / 'healthy')!r}).unlink(); time.sleep(600)"
    )
    process = watched(tmp_path, code)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "killing it for a restart" in output
    status = Path(f"/proc/{output.split()[0]}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_watch_kills_a_command_which_never_becomes_healthy(tmp_path: Path) -> None:
    process = watched(tmp_path, "import time; time.sleep(600)", start=0.5)
    assert "killing it for a restart" in process.communicate(timeout=60)[0]
    assert process.returncode == 1


def test_watch_returns_the_exit_code_of_the_command(tmp_path: Path) -> None:
    process = watched(tmp_path, "raise SystemExit(7)")
    process.communicate(timeout=60)
    assert process.returncode == 7
