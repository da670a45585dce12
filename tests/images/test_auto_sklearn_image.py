"""The auto_sklearn image: reproducible searches, stop requests, and memory limits."""

from __future__ import annotations

import re
import time

import pytest

from tests.images.conftest import THREE_TABLES, FinishedRun, Runner, assert_succeeded, write_tables
from tests.images.models import FEW_CANDIDATES, check_auto_sklearn
from tests.images.search_stops import assert_delivered, assert_stopped_in_search
from tests.images.signals import write_known_signal

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "auto_sklearn"
MODEL = "auto_sklearn"


def _assert_succeeded(finished: FinishedRun) -> FinishedRun:
    check_auto_sklearn(assert_succeeded(finished))
    return finished


def test_auto_sklearn_run_limit_tries_the_same_candidates(runner: Runner) -> None:
    write_tables(runner.directory)
    # more than the first candidates, which are always the same: one is selected by the optimizer
    limits = {"TIME_LIMIT": "100", "RUN_LIMIT": "7", "ROW_LIMIT": "1000"}
    first, again = (_assert_succeeded(runner.run(MODEL, {}, **limits)) for _ in range(2))
    tried = first.report["chosen"]["candidates"]
    assert len(tried["first"]) == 7
    assert again.report["chosen"]["candidates"]["order"] == tried["order"]
    assert again.predictions_bytes == first.predictions_bytes
    assert "learning from 1,000 of 3,000 rows, drawn evenly from all eras (ROW_LIMIT)" in first.report["notes"]
    other = _assert_succeeded(runner.run(MODEL, {}, **limits, SEED="1")).report["chosen"]["candidates"]
    assert other["order"] != tried["order"]


def test_auto_sklearn_stop_request_delivers_the_best_so_far(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start(MODEL, {}, TIME_LIMIT="600", **THREE_TABLES)
    next(line for line in container.logs(stream=True) if re.search(rb" [3-9] models tried", line))
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    check_auto_sklearn(assert_stopped_in_search(runner.wait(container, MODEL)))


# runs the operation with the test's outcome of every refit
FAILING_REFIT = """
import sys, time
from numerai_contract import operations
from numerai_contract.__main__ import main

operations.load("auto_sklearn")
from numerai_operations import _refit

def fail(*_):
    {failure}

_refit._refit_one = fail
sys.exit(main([]))
"""


@pytest.mark.parametrize("is_stopped", [False, True], ids=["failed", "stopped"])
def test_auto_sklearn_failed_refit_keeps_the_first_models(runner: Runner, is_stopped: bool) -> None:
    write_tables(runner.directory)
    failure = "time.sleep(600)" if is_stopped else "raise ValueError('singular')"
    script = FAILING_REFIT.replace("{failure}", failure)
    options = {"entrypoint": ["python", "-W", "ignore", "-c", script]}
    container = runner.start(MODEL, options, TIME_LIMIT="600", RUN_LIMIT="2", ROW_LIMIT="1000", **THREE_TABLES)
    if is_stopped:
        next(line for line in container.logs(stream=True) if re.search(rb"fitting \d+ members on 1,000 rows", line))
        container.stop(timeout=10)
    finished = assert_delivered(runner.wait(container, MODEL))
    members = finished.report["final"]["chosen"]["members"]
    assert finished.report["final"]["chosen"]["refitted"] == 0
    reason = " (stopped by SIGTERM)" if is_stopped else ""
    assert finished.report["notes"][-1] == f"{members} of {members} members keep their model of the first fit{reason}"


def test_auto_sklearn_early_stop_request_exits_with_75(runner: Runner) -> None:
    write_tables(runner.directory)
    container = runner.start(MODEL, TIME_LIMIT="600")
    next(line for line in container.logs(stream=True) if b"searching for" in line)
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    finished = runner.wait(container, MODEL)
    assert finished.code == 75
    assert "stopped by SIGTERM" in finished.lines[-1]
    assert not (runner.directory / f"predictions/{MODEL}.csv").exists()


def test_auto_sklearn_memory_limit_ends_only_the_candidate(runner: Runner) -> None:
    write_known_signal(runner.directory)
    runs = _assert_succeeded(runner.run(MODEL, {}, **FEW_CANDIDATES, MEMORY_LIMIT_PART="500")).report["chosen"]["runs"]
    assert runs["out_of_memory"] >= 1
    assert runs["succeeded"] >= 1
    assert runs["tried"] == 3
