"""The auto_sklearn image: reproducible searches, stop requests, and memory limits."""

from __future__ import annotations

import re
import time

import pytest

from tests.images.conftest import FinishedRun, Runner, assert_succeeded, write_tables
from tests.images.models import FEW_CANDIDATES, check_auto_sklearn
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
    container = runner.start(MODEL, TIME_LIMIT="600")
    next(line for line in container.logs(stream=True) if re.search(rb" [3-9] models tried", line))
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    finished = _assert_succeeded(runner.wait(container, MODEL))
    assert any("stopped by SIGTERM after" in note for note in finished.report["notes"])


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
