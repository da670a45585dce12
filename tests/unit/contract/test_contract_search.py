"""Background predictions of a search: their start, their use, and their end."""

from __future__ import annotations

import io
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from numerai_contract.exits import ModelFailureError, TryAgainError
from numerai_contract.parameters import Parameters
from numerai_contract.progress import Progress
from numerai_contract.search import BackgroundPredictor, SearchedModel, log_progress, table_to_predict
from numerai_contract.task import Task
from numerai_contract.workers import Outcome

COST = 10.0


class StubJob:
    """A job that ends when a test sets its outcome, or after a number of waits."""

    def __init__(self, name: str, search_is_running: bool) -> None:
        self.name, self.search_is_running = name, search_is_running
        self.outcome: Outcome | None = None
        self.is_ended = False
        self.waits = 0

    def succeed(self) -> None:
        self.outcome = Outcome("succeeded", f"predictions of {self.name}", "", COST)

    def fail(self) -> None:
        self.outcome = Outcome("crashed", None, "a reason", COST)

    def wait(self, timeout: float) -> None:
        assert timeout > 0
        self.waits += 1
        if "bad" in self.name:
            self.fail()
        else:
            self.succeed()

    def poll(self) -> Outcome | None:
        return self.outcome

    def end(self) -> None:
        self.is_ended = True


class Rig:
    """A predictor with stub jobs and a clock that the test sets."""

    def __init__(self, *, share: float = 0.1, headroom: float = 0.0) -> None:
        self.now = 0.0
        self.jobs: list[StubJob] = []
        self.done: list[tuple[str, str]] = []
        self.predictor: BackgroundPredictor[str, StubJob] = BackgroundPredictor(
            self._start,
            on_done=lambda candidate, outcome: self.done.append((candidate, outcome.status)),
            elapsed=lambda: self.now,
            share=share,
            headroom=headroom,
        )

    def _start(self, candidate: str, search_is_running: bool) -> StubJob:
        self.jobs.append(StubJob(candidate, search_is_running))
        return self.jobs[-1]

    @property
    def started(self) -> list[str]:
        return [job.name for job in self.jobs]


def test_update_first_candidate_starts_at_once() -> None:
    rig = Rig()
    rig.predictor.update([])
    assert rig.started == []
    rig.predictor.update(["a"])
    assert rig.started == ["a"]
    assert rig.jobs[0].search_is_running
    assert rig.predictor.job is rig.jobs[0]


def test_update_running_job_starts_no_other() -> None:
    rig = Rig()
    rig.predictor.update(["a"])
    rig.now = 1_000
    rig.predictor.update(["b", "a"])
    assert rig.started == ["a"]


@pytest.mark.parametrize(("headroom", "due"), [(0.0, 100.0), (1.0, 200.0)])
def test_update_next_candidate_waits_for_the_share(headroom: float, due: float) -> None:
    rig = Rig(share=0.1, headroom=headroom)
    rig.predictor.update(["a"])
    rig.jobs[0].succeed()
    rig.now = due - 1
    rig.predictor.update(["b", "a"])
    assert rig.predictor.latest == ("a", "predictions of a")
    assert rig.started == ["a"]
    rig.now = due
    rig.predictor.update(["b", "a"])
    assert rig.started == ["a", "b"]


def test_update_predicted_candidate_is_not_started_again() -> None:
    rig = Rig()
    rig.predictor.update(["a"])
    rig.jobs[0].succeed()
    rig.now = 1_000
    rig.predictor.update(["a", "b"])
    rig.predictor.update(["a", "b"])
    assert rig.started == ["a"]
    assert rig.done == [("a", "succeeded")]


def test_update_failed_candidate_is_replaced_by_the_next() -> None:
    rig = Rig()
    rig.now = 1_000
    rig.predictor.update(["bad", "b"])
    rig.jobs[0].fail()
    rig.predictor.update(["bad", "b"])
    assert rig.started == ["bad", "b"]
    assert rig.done == [("bad", "crashed")]
    assert rig.predictor.latest is None


def test_finish_predicts_with_the_best_that_succeeds() -> None:
    rig = Rig()
    rig.predictor.finish(lambda: ["bad", "also bad", "c", "d"], lambda: False)
    assert rig.started == ["bad", "also bad", "c"]
    assert not any(job.search_is_running for job in rig.jobs)
    assert rig.predictor.latest == ("c", "predictions of c")


def test_finish_outdated_job_is_ended_when_there_are_predictions() -> None:
    rig = Rig()
    rig.now = 1_000
    rig.predictor.update(["a"])
    rig.jobs[0].succeed()
    rig.predictor.update(["b", "a"])
    rig.predictor.finish(lambda: ["c", "b", "a"], lambda: False)
    assert rig.started == ["a", "b", "c"]
    assert rig.jobs[1].is_ended
    assert rig.predictor.latest == ("c", "predictions of c")


def test_finish_outdated_job_is_kept_when_there_are_no_predictions() -> None:
    rig = Rig()
    rig.predictor.update(["a"])
    rig.predictor.finish(lambda: ["b", "a"], lambda: False)
    assert rig.done == [("a", "succeeded"), ("b", "succeeded")]
    assert not rig.jobs[0].is_ended


def test_finish_over_at_once_uses_a_finished_job() -> None:
    rig = Rig()
    rig.predictor.update(["a"])
    rig.jobs[0].succeed()
    rig.predictor.finish(lambda: ["b", "a"], lambda: True)
    assert rig.started == ["a"]
    assert rig.predictor.latest == ("a", "predictions of a")


def test_finish_over_while_running_ends_the_job() -> None:
    rig = Rig()
    rig.predictor.update(["a"])
    rig.predictor.finish(lambda: ["a"], lambda: True)
    assert rig.jobs[0].is_ended
    assert (rig.predictor.latest, rig.predictor.job) == (None, None)


def _task() -> tuple[Task, io.StringIO]:
    log = io.StringIO()
    return Task(Parameters({}), Progress(log)), log


def test_result_after_a_stop_request_has_a_note() -> None:
    rig = Rig()
    rig.predictor.finish(lambda: ["a"], lambda: False)
    task, log = _task()
    result = rig.predictor.result(task, [signal.SIGTERM], 75.0, describe=lambda name: f"candidate {name}")
    assert result == ("a", "predictions of a")
    assert log.getvalue() == "stopped by SIGTERM after 1 min 15 s: using candidate a\n"


@pytest.mark.parametrize(
    ("stop", "error", "message"),
    [
        ([signal.SIGTERM], TryAgainError, "stopped by SIGTERM after 5.0 s, before the first pipeline had predicted"),
        ([], ModelFailureError, "no pipeline could predict anything; see the lines above for the reasons. Another"),
    ],
)
def test_result_without_predictions_raises(stop: list[Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        Rig().predictor.result(_task()[0], stop, 5.0, noun="pipeline")


@pytest.mark.parametrize(
    ("run_limit", "line"),
    [
        (None, "[ 10 %] 6 of 60 s, 3 models tried, best 0.69"),
        (4, "[ 75 %] 6 of 60 s, 3 of 4 models tried, best 0.69"),
        (3, "[ 99 %] 6 of 60 s, 3 of 3 models tried, best 0.69"),
    ],
)
def test_log_progress_uses_the_nearest_limit(run_limit: int | None, line: str) -> None:
    task, log = _task()
    log_progress(task, spent=6, seconds=60, tried=3, run_limit=run_limit, noun="models", state="best 0.69")
    assert log.getvalue() == f"{line}\n"


@pytest.mark.parametrize("has_validation", [True, False])
def test_table_to_predict_is_the_validation_table_if_any(has_validation: bool) -> None:
    task: Any = SimpleNamespace(has_validation=has_validation, validation="validation", testing="testing")
    assert str(table_to_predict(task)) == ("validation" if has_validation else "testing")


def test_searched_model_predicted_table_is_not_predicted_again(tmp_path: Path) -> None:
    searched: Any = SimpleNamespace(
        predict=lambda _task, table: f"predictions of {table.path}",
        save=lambda directory: (directory / "model").touch(),
    )
    tables: list[Any] = [SimpleNamespace(path=Path(name)) for name in ("validation", "live")]
    task: Any = None
    predictions = np.array([0.4, 0.6])
    model = SearchedModel(searched, tables[0], predictions)
    assert model.predict(task, tables[0]) is predictions
    assert str(model.predict(task, tables[1])) == "predictions of live"
    model.save(tmp_path)
    assert (tmp_path / "model").exists()
