"""The watch over a server's scheduler: real processes that are well, unwell, or end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.samples import ROOT

# a program is well as long as a file is there
WATCH = """
from pathlib import Path
from server.airflow.watched import watch
raise SystemExit(watch({command!r}, Path({well!r}).exists, look=0.05, patience={patience}, start={start}))
"""


def watched(tmp_path: Path, code: str, *, patience: float = 0.3, start: float = 30.0) -> subprocess.Popen[str]:
    script = WATCH.format(
        command=(sys.executable, "-c", code), well=str(tmp_path / "well"), patience=patience, start=start
    )
    return subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_one_that_is_not_well_any_more_is_ended_with_its_children(tmp_path: Path) -> None:
    (tmp_path / "well").touch()
    # it says who it is, and stops being well by itself
    code = (
        "import os, pathlib, signal, subprocess, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen(['sleep', '600'])\n"
        "print(child.pid, flush=True)\n"
        f"time.sleep(0.5); pathlib.Path({str(tmp_path / 'well')!r}).unlink(); time.sleep(600)"
    )
    process = watched(tmp_path, code)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "started anew" in said
    status = Path(f"/proc/{said.split()[0]}/stat")
    assert not status.exists() or status.read_text().split()[2] == "Z"


def test_one_that_never_gets_well_is_ended_too(tmp_path: Path) -> None:
    process = watched(tmp_path, "import time; time.sleep(600)", start=0.5)
    assert "started anew" in process.communicate(timeout=60)[0]
    assert process.returncode == 1


def test_one_that_ends_by_itself_is_believed(tmp_path: Path) -> None:
    process = watched(tmp_path, "raise SystemExit(7)")
    process.communicate(timeout=60)
    assert process.returncode == 7
