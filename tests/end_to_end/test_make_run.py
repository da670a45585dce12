"""``make run`` with the real engine, the real images and the real Airflow."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pytest

from launcher.paths import ROOT
from launcher.processes import wait_until
from numerai_pipeline.containers.data_volume import installation_id

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.end_to_end, pytest.mark.containers, pytest.mark.timeout(900)]

STOP_SECONDS = 15.0
HEADER = "id,prediction"


@pytest.fixture
def environment() -> dict[str, str]:
    """The user's environment, without the variables of the make that runs these tests."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS", "NUMERAI_"))}


@pytest.fixture
def make_run(environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A run that computes everything again, so that it can be interrupted."""
    with subprocess.Popen(
        ["make", "run", "MODELS=svm,xgboost", "FORCE=1"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        yield process
        if process.poll() is None:
            process.terminate()


def read_until(process: subprocess.Popen[str], pattern: str) -> list[str]:
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return lines
    pytest.fail(f"it ended without printing {pattern!r}:\n{''.join(lines)}")


def our_containers() -> list[str]:
    label = f"label=numerai={installation_id(ROOT / 'data')}"
    command = ["docker", "ps", "--all", "--quiet", "--filter", label]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()


def our_processes() -> list[str]:
    """Command lines of this checkout's processes in other sessions: Airflow, the simulator."""
    found = []
    own_session = os.getsid(0)
    for process in psutil.process_iter(["cmdline", "cwd", "status", "pid"]):
        properties = process.info
        command = " ".join(properties["cmdline"] or [])
        if properties["status"] == psutil.STATUS_ZOMBIE or properties["cwd"] != str(ROOT):
            continue
        try:
            elsewhere = os.getsid(properties["pid"]) != own_session
        except ProcessLookupError:
            continue
        if elsewhere and re.search(r"airflow|-m practice|-m launcher run", command):
            found.append(command)
    return found


def test_make_run_produces_predictions(environment: dict[str, str]) -> None:
    answer = subprocess.run(
        ["make", "run", "MODELS=xgboost"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert "\x1b" not in answer.stdout
    assert f"{ROOT / 'data'}, shared with the engine's containers" in answer.stdout
    assert "Run succeeded" in answer.stdout
    path = Path(re.findall(r"^  xgboost +(/.*\.csv)$", answer.stdout, flags=re.MULTILINE)[0])
    header, *rows = path.read_text().splitlines()
    assert header == HEADER
    assert f"{len(rows):,}" in answer.stdout
    assert not our_containers()
    assert not our_processes()


def test_make_run_when_stopped_ends_all_processes(make_run: subprocess.Popen[str]) -> None:
    read_until(make_run, r"svm: running")
    assert wait_until(lambda: bool(our_containers()), 60)
    stopped = time.monotonic()
    # as a terminal's Ctrl-C: to make and all its children (to make alone: see test_signals.py)
    os.killpg(make_run.pid, signal.SIGINT)
    rest = make_run.communicate()[0]
    assert time.monotonic() - stopped <= STOP_SECONDS
    assert make_run.returncode != 0
    assert "everything started by this command has been stopped" in rest
    assert "Error 130" in rest
    assert not our_containers()
    assert not our_processes()


def test_make_run_during_another_one_is_rejected(make_run: subprocess.Popen[str], environment: dict[str, str]) -> None:
    read_until(make_run, r"Docker engine")
    second = subprocess.run(
        ["make", "run"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert second.returncode != 0
    assert "already running in this checkout" in second.stdout + second.stderr
    make_run.terminate()
    make_run.communicate()


def test_make_run_with_an_unknown_option_lists_the_valid_ones(environment: dict[str, str]) -> None:
    answer = subprocess.run(
        ["make", "run", "MODEL=svm"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert answer.returncode != 0
    assert "did you mean MODELS?" in answer.stdout
    assert "FEATURE_SET" in answer.stdout
