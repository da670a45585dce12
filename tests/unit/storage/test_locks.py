"""Exclusive locks: one process at a time, also after a kill of the first one."""

from __future__ import annotations

import fcntl
import logging
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from numerai_pipeline.storage.locks import exclusive_lock
from tests.samples import ROOT, wait_until_contended

HOLD = """
import sys
from pathlib import Path
from numerai_pipeline.storage.locks import exclusive_lock
with exclusive_lock(Path(sys.argv[1]), "making it") as alone:
    print("exclusive" if alone else "not alone", flush=True)
    sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        cwd=ROOT / "plugins",
        text=True,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("end", [signal.SIGKILL, None], ids=["killed", "done"])
def test_file_lock_second_process_waits_for_the_first(tmp_path: Path, end: signal.Signals | None) -> None:
    path = tmp_path / "file"
    with holder(path) as first, holder(path) as second:
        processes = (first, second)
        wait_until_contended(tmp_path / ".file.lock")
        # the first process has the lock; the other has no output yet
        with (tmp_path / ".file.lock").open() as probe, pytest.raises(BlockingIOError):
            fcntl.flock(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if end is None:
            for process in processes:
                assert process.stdin is not None
                process.stdin.close()
            assert [read_line(process) for process in processes] == ["exclusive", "exclusive"]
        else:
            first.send_signal(end)
            first.wait()
            assert read_line(second) == "exclusive"
            second.send_signal(end)


def test_file_lock_file_system_without_locks_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def no_locks(_file: object, _operation: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("numerai_pipeline.storage.locks.fcntl.flock", no_locks)
    with caplog.at_level(logging.WARNING), exclusive_lock(tmp_path / "file", "making it") as alone:
        assert not alone
    assert "no lock on this file system" in caplog.text
