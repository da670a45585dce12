"""Runs the search, logs progress and predicts with the best ensemble so far in the background."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from numerai_contract.exits import ModelFailureError, NotEnoughMemoryError
from numerai_contract.progress import duration
from numerai_contract.search import POLL_SECONDS, BackgroundPredictor, log_outcomes, log_progress, table_to_predict
from numerai_contract.workers import Limits, Worker

from ._ensemble import Ensemble, select
from ._search import metric_of, search
from ._search_log import SearchLog

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from numerai_contract.task import Task
    from numerai_contract.workers import Outcome

    from ._budget import SearchPlan
    from ._ensemble import Selected
    from ._search_log import Candidate
    from ._training_data import TrainingData

# the share of the search's time for predictions that a later ensemble may replace
_PREDICTION_TIME_SHARE = 0.1
_BACKGROUND_NICENESS = 10


class SearchRunner:
    """Runs the search in a worker, logs its progress, and predicts with the best ensemble so far."""

    def __init__(self, task: Task, plan: SearchPlan, data: TrainingData, stop: Sequence[signal.Signals]) -> None:
        self._task, self._plan, self._stop = task, plan, stop
        self._log = SearchLog(plan)
        self._seconds = 0.0
        self._table = table_to_predict(task)
        self._held_out = data.labels[data.training_rows :]
        self._predictor: BackgroundPredictor[tuple[Candidate, ...], Worker] = BackgroundPredictor(
            self._start_predicting, on_done=self._on_predicted, elapsed=self._elapsed, share=_PREDICTION_TIME_SHARE
        )
        self._searcher = Worker(lambda send: search(plan, data, send), log=plan.directory.with_name("search.log"))

    def search(self) -> None:
        """Wait for the search until it ends, its time is over, or there is a stop request."""
        try:
            while self._searcher.poll() is None and not self._stop and time.monotonic() < self._plan.deadline:
                self._drain_messages(POLL_SECONDS)
                self._predictor.update(self._ensembles())
                self._log_progress()
            if not self._stop:
                self._drain_messages(0)
        finally:
            outcome = self._searcher.poll()
            self._searcher.end()
            self._seconds = self._elapsed()
        self._log_summary(outcome)

    def result(self) -> tuple[Ensemble, Selected]:
        """Select from all candidates and predict; at a stop request, return the last ensemble that predicted."""
        self._predictor.finish(self._ensembles, lambda: bool(self._stop))
        _, found = self._predictor.result(
            self._task, self._stop, self._seconds, describe=lambda _members: "the best ensemble so far"
        )
        selected: Selected = found
        return Ensemble.read(self._plan, selected.members, selected.constant), selected

    def report_details(self, best: Selected) -> dict[str, Any]:
        """Return the search and its result for the report."""
        plan, log = self._plan, self._log
        return {
            "task": plan.kind,
            "metric": metric_of(plan.kind).name,
            "search_seconds": self._seconds,
            "seconds_per_fit": plan.seconds_per_fit,
            "memory_per_fit_mib": plan.budget.memory,
            "at_a_time": plan.budget.jobs,
            "runs": log.runs,
            "ensemble": {
                "held_out_loss": best.held_out_loss,
                "members": [{"weight": weight, **log.describe(number)} for number, weight in best.members],
            },
            "trajectory": log.trajectory,
            "candidates": log.candidates,
        }

    def _elapsed(self) -> float:
        return time.monotonic() - self._plan.began

    def _ensembles(self) -> list[tuple[Candidate, ...]]:
        return [tuple(self._log.stored)] if self._log.stored else []

    def _drain_messages(self, timeout: float) -> None:
        for message in self._searcher.messages(timeout):
            self._log.add(message, self._elapsed())

    def _log_progress(self) -> None:
        measure = "logloss" if self._plan.kind == "classifier" else "squared error"
        best = "none yet" if self._log.best is None else f"{self._log.best:.6f}"
        log_progress(
            self._task,
            spent=self._elapsed(),
            seconds=self._plan.seconds,
            tried=self._log.tried,
            run_limit=self._plan.run_limit,
            noun="models",
            state=f"best held-out {measure} {best}",
        )

    def _log_summary(self, outcome: Outcome | None) -> None:
        log, task = self._log, self._task
        log_outcomes(task, self._seconds, log.runs)
        failure = None if outcome is None or outcome.status == "succeeded" else outcome
        if failure is not None and log.stored:
            task.note(
                f"the search failed after {duration(self._seconds)} ({failure.reason}); continuing with its candidates"
            )
        if log.stored or self._stop:
            return
        if failure is not None:
            error = NotEnoughMemoryError if failure.status == "out_of_memory" else ModelFailureError
            raise error(f"auto-sklearn's search failed before the first model: {failure.reason}.")
        if log.runs["out_of_memory"]:
            raise NotEnoughMemoryError(
                f"none of {log.tried:,} candidates succeeded with {self._plan.budget.memory:,} MiB (or in its time). "
                "Give the model more memory in models.yaml, or a smaller ROW_LIMIT."
            )
        raise ModelFailureError(
            f"none of {log.tried:,} candidates finished in {self._plan.seconds_per_fit} s, all of them in "
            f"{duration(self._seconds)}. Give the search more time (automl_minutes), or a smaller ROW_LIMIT."
        )

    def _start_predicting(self, members: tuple[Candidate, ...], search_is_running: bool) -> Worker:
        plan, held_out, table = self._plan, self._held_out, self._table
        self._log.in_use = self._members_of_latest() | {candidate.number for candidate in members}
        threads = 1 if search_is_running else self._task.parameters.threads
        return Worker(
            lambda _send: select(plan, members, held_out, table, threads),
            limits=Limits(niceness=_BACKGROUND_NICENESS if search_is_running else 0),
            log=plan.directory.with_name("predictions.log"),
        )

    def _on_predicted(self, _members: tuple[Candidate, ...], outcome: Outcome) -> None:
        self._log.in_use = self._members_of_latest()
        if outcome.status != "succeeded":
            self._task.note(f"an ensemble could not predict: {outcome.reason}")

    def _members_of_latest(self) -> frozenset[int]:
        """Return the candidates whose models are those of the last ensemble that predicted."""
        latest = self._predictor.latest
        return frozenset() if latest is None else frozenset(number for number, _ in latest[1].members)
