"""Runs the search, logs progress and predicts with the best pipeline so far in the background."""

from __future__ import annotations

import functools
import time
import warnings
from collections import deque
from typing import TYPE_CHECKING, Any

from threadpoolctl import threadpool_limits

from numerai_contract.exits import ModelFailureError, NotEnoughMemoryError
from numerai_contract.search import POLL_SECONDS, BackgroundPredictor, log_outcomes, log_progress, table_to_predict
from numerai_contract.workers import Limits, Worker, wait_for_any

from ._cross_validation import evaluate, train
from ._evolution import Evolution
from ._pipelines import described, tidy
from ._search_log import SearchLog
from ._spaces import search_space

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Sequence

    from numerai_contract.task import Task
    from numerai_contract.workers import Outcome

    from ._budget import SearchPlan
    from ._cross_validation import Trained
    from ._search_log import Candidate, Trial
    from ._training_data import ResourceBudget, TrainingData

# the share of the search's time for predictions that a later pipeline may replace
_PREDICTION_TIME_SHARE = 0.2


class _SearchOver(Exception):  # noqa: N818 (not an error)
    """The search is over: by its time, its run limit, or a stop request."""


class SearchRunner:
    """Runs the search with workers, logs its progress, and predicts with the best pipeline so far."""

    def __init__(
        self, task: Task, plan: SearchPlan, budget: ResourceBudget, data: TrainingData, stop: Sequence[signal.Signals]
    ) -> None:
        self._task, self._plan, self._budget, self._data, self._stop = task, plan, budget, data, stop
        self._table = table_to_predict(task)
        self._log = SearchLog()
        self._seconds = 0.0
        self._generation = 0
        self._evaluations: dict[Worker, Trial] = {}
        self._known: dict[str, Outcome] = {}
        self._predictor: BackgroundPredictor[Candidate, Worker] = BackgroundPredictor(
            self._start_predicting, on_done=self._on_predicted, elapsed=self._elapsed, share=_PREDICTION_TIME_SHARE
        )

    def search(self) -> None:
        """Search until the time is over, the run limit is reached, or there is a stop request."""
        plan = self._plan
        rows, features = self._data.features.shape
        space = search_space(plan.space, rows, features, plan.seed)
        try:
            Evolution(space, plan.population, plan.seed, self._evaluate_all, self._end_if_over).evolve()
        except _SearchOver:
            pass
        finally:
            for worker in self._evaluations:
                worker.end()
            self._evaluations.clear()
            self._seconds = self._elapsed()
        self._log_summary()

    def result(self) -> tuple[Candidate, Trained]:
        """Train the best pipeline; at a stop request, or out of time, return the last one that was trained."""
        self._predictor.finish(lambda: self._log.best, self._is_over)
        candidate, trained = self._predictor.result(
            self._task,
            self._stop,
            self._seconds,
            noun="pipeline",
            describe=lambda _candidate: "the best pipeline so far",
        )
        return candidate, trained

    def report_details(self, best: Candidate) -> dict[str, Any]:
        """Return the search and its result for the report."""
        plan = self._plan
        return {
            "search_space": plan.space,
            "population": plan.population,
            "generations": self._generation,
            "folds": plan.folds,
            "search_seconds": self._seconds,
            "seconds_per_pipeline": plan.seconds_per_pipeline,
            "memory_per_pipeline_mib": self._budget.memory,
            "at_a_time": self._budget.jobs,
            "pipelines": self._log.outcomes,
            "best_logloss": best.loss,
            "pipeline": described(best.pipeline),
            "trajectory": self._log.trajectory,
            "candidates": self._log.candidates,
        }

    def _elapsed(self) -> float:
        return time.monotonic() - self._plan.began

    def _evaluate_all(self, pipelines: list[Any]) -> list[Outcome]:
        """Evaluate the pipelines of a generation, as many at a time as there are cores."""
        tidied = [tidy(pipeline) for pipeline in pipelines]
        # pipelines that differ only in steps without effect are equal, and evaluated once
        names = [repr(described(pipeline)) for pipeline in tidied]
        unknown = {name: one for name, one in zip(names, tidied, strict=True) if name not in self._known}
        waiting = deque(unknown.items())
        while True:
            self._end_if_over()
            if not waiting and not self._evaluations:
                self._generation += 1
                return [self._known[name] for name in names]
            self._predictor.update(self._log.best)
            while waiting and self._may_begin:
                trial = self._log.begin(*waiting.popleft())
                work = functools.partial(evaluate, trial.pipeline, self._data)
                self._evaluations[self._worker(work, self._plan.seconds_per_pipeline)] = trial
            wait_for_any(self._workers, POLL_SECONDS)
            self._drain_messages()
            self._log_progress()

    def _drain_messages(self) -> None:
        for worker, trial in list(self._evaluations.items()):
            outcome = worker.poll()
            if outcome is not None:
                del self._evaluations[worker]
                self._known[trial.name] = outcome
                self._log.end(trial, outcome, self._elapsed())

    @property
    def _workers(self) -> list[Worker]:
        predicting = self._predictor.job
        return [*self._evaluations, *([] if predicting is None else [predicting])]

    @property
    def _may_begin(self) -> bool:
        within_limit = self._plan.run_limit is None or self._log.tried < self._plan.run_limit
        return within_limit and len(self._workers) < self._budget.jobs

    def _worker(self, work: Callable[[], Any], seconds: float) -> Worker:
        return start_worker(work, self._plan, self._budget.memory, seconds)

    def _end_if_over(self) -> None:
        plan, best = self._plan, self._log.best
        all_tried = plan.run_limit is not None and self._log.tried >= plan.run_limit and not self._evaluations
        # a fit on all rows takes less time than the fits of all folds
        pending = self._predictor.pending(best)
        remaining_work = 0 if pending is None else pending.seconds
        deadline = plan.deadline - remaining_work if best else plan.deadline_without_any
        if self._stop or all_tried or time.monotonic() >= deadline:
            raise _SearchOver

    def _is_over(self) -> bool:
        """Check whether the final predictions must stop."""
        if self._stop:
            return True
        without_any = self._predictor.latest is None
        if time.monotonic() < (self._plan.latest if without_any else self._plan.last_moment):
            return False
        if self._predictor.job is not None or self._predictor.pending(self._log.best) is not None:
            self._task.note("the best pipeline did not predict in time")
        return True

    def _log_progress(self) -> None:
        best = f"{self._log.best[0].loss:.6f}" if self._log.best else "none yet"
        log_progress(
            self._task,
            spent=self._elapsed(),
            seconds=self._plan.seconds,
            tried=self._log.tried,
            run_limit=self._plan.run_limit,
            noun="pipelines",
            state=f"generation {self._generation:,}, best logloss {best}",
        )

    def _log_summary(self) -> None:
        log = self._log
        log_outcomes(self._task, self._seconds, log.outcomes)
        if log.best or self._predictor.latest or self._stop:
            return
        if log.outcomes["out_of_memory"]:
            raise NotEnoughMemoryError(
                f"none of {log.tried:,} pipelines succeeded with {self._budget.memory:,} MiB (or in its time). "
                "Give the model more memory in models.yaml, or a smaller ROW_LIMIT."
            )
        raise ModelFailureError(
            f"none of {log.tried:,} pipelines succeeded; the last one: {log.last_failure}. If they lack time, give the "
            "search more (automl_minutes), or a smaller ROW_LIMIT."
        )

    def _start_predicting(self, candidate: Candidate, search_is_running: bool) -> Worker:  # noqa: ARG002 (no niceness)
        # predictions of a long table may take longer than the evaluation
        seconds = max(self._plan.last_moment - time.monotonic(), self._plan.seconds_per_pipeline)
        return self._worker(functools.partial(train, candidate.pipeline, self._data, self._table), seconds)

    def _on_predicted(self, candidate: Candidate, outcome: Outcome) -> None:
        if outcome.status == "succeeded":
            return
        self._log.reject(candidate, outcome.reason)
        self._task.note(
            f"rejected the pipeline with logloss {candidate.loss:.5f}, which could not predict after a fit on all "
            f"rows: {outcome.reason}"
        )


def start_worker(work: Callable[[], Any], plan: SearchPlan, memory: int, seconds: float) -> Worker:
    """Start a worker on one core, with the plan's seed and limits in MiB and seconds."""

    def on_one_core(_send: object) -> Any:
        warnings.simplefilter("ignore")
        with threadpool_limits(1):
            return work()

    return Worker(on_one_core, limits=Limits(seconds=seconds, memory=memory), seed=plan.seed)
