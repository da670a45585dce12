"""A search under somebody's eyes: its progress told, its best pipeline turned into predictions as it goes."""

from __future__ import annotations

import functools
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from numerai_contract.exits import ModelFailureError, NotEnoughMemoryError, TryAgainError
from numerai_contract.progress import duration

from ._evolution import Evolution
from ._found import Found
from ._judging import forecast, judge
from ._pipelines import described, tidy
from ._spaces import search_space
from ._workers import Worker, wait_for_any

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from numerai_contract.task import Task

    from ._found import Candidate, Trial
    from ._judging import Forecast
    from ._lesson import Lesson, Room
    from ._plan import Plan
    from ._workers import Outcome

# of the time spent, how much may go into predicting with what may yet be bettered
_FORECASTING_SHARE = 0.2
# seconds between two looks at clock, requests to stop and workers
_LOOK = 0.2


class _Over(Exception):  # noqa: N818 (nothing went wrong)
    """The search is over: by its time, its run limit, or a request to stop."""


class Search:
    """A search, watched: its progress told, its best pipeline turned into predictions as it goes."""

    def __init__(self, task: Task, plan: Plan, room: Room, lesson: Lesson, stop: Sequence[signal.Signals]) -> None:
        self._task, self._plan, self._room, self._lesson, self._stop = task, plan, room, lesson, stop
        self._rows = len(task.tournament)
        self._found = Found()
        self._seconds = 0.0
        self._generation = 0
        self._judges: dict[Worker, Trial] = {}
        self._known: dict[str, Outcome] = {}
        self._forecaster: tuple[Worker, Candidate] | None = None
        self._forecast_seconds = 0.0
        self._last: tuple[Candidate, Forecast] | None = None

    def run(self) -> None:
        """Search until the time is up, the run limit is reached, or somebody asks to stop."""
        plan = self._plan
        rows, features = self._lesson.features.shape
        space = search_space(plan.space, rows, features, plan.seed)
        try:
            Evolution(space, plan.population, plan.seed, self._judge_all, self._end_if_over).evolve()
        except _Over:
            pass
        finally:
            for worker in self._judges:
                worker.end()
            self._judges.clear()
            self._seconds = time.monotonic() - plan.began
        self._say_how_it_ended()

    def last_forecast(self) -> tuple[Candidate, Forecast]:
        """Predict with the best pipeline; when asked to stop, or out of time, give the last predictions there are."""
        try:
            if self._last is not None and self._pending and self._forecaster_is_late:
                self._end_forecast()
            while not self._stop and (self._forecaster is not None or self._pending):
                if time.monotonic() >= (self._plan.latest if self._last is None else self._plan.last_moment):
                    self._task.note("the best pipeline did not predict in time")
                    break
                if self._forecaster is None:
                    self._begin_forecast()
                self._look_after_forecast(patience=_LOOK)
        finally:
            self._end_forecast()
        if self._stop:
            asked = f"stopped by {self._stop[0].name} after {self._seconds:.0f} s"
            if self._last is None:
                raise TryAgainError(f"{asked}, before the first pipeline had predicted anything. Run it again.")
            self._task.note(f"{asked}: these are the predictions of the best pipeline so far")
        if self._last is None:
            raise ModelFailureError("no pipeline could predict the tournament; the lines above say why.")
        return self._last

    def chosen(self, best: Candidate) -> dict[str, Any]:
        """Put what was searched and found into a report's words."""
        plan = self._plan
        return {
            "search_space": plan.space,
            "population": plan.population,
            "generations": self._generation,
            "folds": plan.folds,
            "search_seconds": self._seconds,
            "seconds_per_pipeline": plan.seconds_per_pipeline,
            "memory_per_pipeline_mib": self._room.memory,
            "at_a_time": self._room.jobs,
            "pipelines": self._found.outcomes,
            "best_logloss": best.loss,
            "pipeline": described(best.pipeline),
            "trajectory": self._found.trajectory,
            "candidates": self._found.candidates,
        }

    def _judge_all(self, pipelines: list[Any]) -> list[Outcome]:
        """Judge a generation's pipelines, as many at a time as there are cores."""
        tidied = [tidy(pipeline) for pipeline in pipelines]
        # what differs only in steps that do nothing is the same pipeline, and judged once
        names = [repr(described(pipeline)) for pipeline in tidied]
        unknown = {name: one for name, one in zip(names, tidied, strict=True) if name not in self._known}
        waiting = deque(unknown.items())
        while True:
            self._end_if_over()
            if not waiting and not self._judges:
                self._generation += 1
                return [self._known[name] for name in names]
            self._look_after_forecast(patience=0)
            while waiting and self._may_begin:
                trial = self._found.begin(*waiting.popleft())
                work = functools.partial(judge, trial.pipeline, self._lesson)
                self._judges[self._worker(work, self._plan.seconds_per_pipeline)] = trial
            wait_for_any(self._workers, _LOOK)
            for worker, trial in list(self._judges.items()):
                outcome = worker.outcome()
                if outcome is not None:
                    del self._judges[worker]
                    self._known[trial.name] = outcome
                    self._found.end(trial, outcome, time.monotonic() - self._plan.began)
            self._say()

    @property
    def _workers(self) -> list[Worker]:
        return [*self._judges, *(self._forecaster or ())[:1]]

    @property
    def _may_begin(self) -> bool:
        within = self._plan.run_limit is None or self._found.tried < self._plan.run_limit
        return within and len(self._workers) < self._room.jobs

    def _worker(self, work: Any, seconds: float) -> Worker:
        return Worker(work, seconds=seconds, memory=self._room.memory, seed=self._plan.seed)

    def _end_if_over(self) -> None:
        plan, best = self._plan, self._found.best
        run_out = plan.run_limit is not None and self._found.tried >= plan.run_limit and not self._judges
        # fitting on all rows takes less than fitting on all but a fold, several times
        still_to_do = best[0].seconds if self._pending else 0
        deadline = plan.deadline - still_to_do if best else plan.deadline_without_any
        if self._stop or run_out or time.monotonic() >= deadline:
            raise _Over

    def _say(self) -> None:
        plan, found = self._plan, self._found
        spent = time.monotonic() - plan.began
        best = f"{found.best[0].loss:.4f}" if found.best else "none yet"
        of = "" if plan.run_limit is None else f" of {plan.run_limit:,}"
        share = (
            spent / plan.seconds if plan.run_limit is None else max(spent / plan.seconds, found.tried / plan.run_limit)
        )
        self._task.progress.update(
            min(share, 0.99),
            f"{spent:.0f} of {plan.seconds} s, {found.tried:,}{of} pipelines tried, generation {self._generation:,}, "
            f"best logloss {best}",
        )

    def _say_how_it_ended(self) -> None:
        found, task = self._found, self._task
        tried = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.outcomes.items())
        task.progress.say(f"searched for {duration(self._seconds)}: {tried}")
        if found.best or self._last or self._stop:
            return
        if found.outcomes["out_of_memory"]:
            raise NotEnoughMemoryError(
                f"none of {found.tried:,} pipelines did with {self._room.memory:,} MiB (or in its time). "
                "Give the model more memory in models.yaml, or a smaller ROW_LIMIT."
            )
        raise ModelFailureError(
            f"none of {found.tried:,} pipelines was of any use; of the last one: {found.last_trouble}. If it is time "
            "they lack, give the search more (automl_minutes), or a smaller ROW_LIMIT."
        )

    @property
    def _pending(self) -> bool:
        """Whether the best pipeline there is has not predicted yet."""
        best = self._found.best
        return bool(best) and (self._last is None or self._last[0] is not best[0])

    @property
    def _forecaster_is_late(self) -> bool:
        """Whether it is still at a pipeline that is the best no more."""
        return self._forecaster is not None and self._forecaster[1] is not self._found.best[0]

    def _begin_forecast(self) -> None:
        candidate = self._found.best[0]
        # predicting a long table may well take longer than judging did
        seconds = max(self._plan.last_moment - time.monotonic(), self._plan.seconds_per_pipeline)
        work = functools.partial(forecast, candidate.pipeline, self._lesson, self._rows)
        self._forecaster = self._worker(work, seconds), candidate

    def _end_forecast(self) -> None:
        if self._forecaster is not None:
            self._forecaster[0].end()
            self._forecaster = None

    def _look_after_forecast(self, *, patience: float) -> None:
        """Take in predictions that are done; begin others, unless that costs too much of the search's time."""
        if self._forecaster is None:
            spent = time.monotonic() - self._plan.began
            if self._pending and self._forecast_seconds <= _FORECASTING_SHARE * spent:
                self._begin_forecast()
            return
        worker, candidate = self._forecaster
        wait_for_any([worker], patience)
        outcome = worker.outcome()
        if outcome is None:
            return
        self._forecaster = None
        self._forecast_seconds += outcome.seconds
        if outcome.status == "succeeded":
            self._last = candidate, outcome.value
            return
        self._found.pass_over(candidate, outcome.words)
        self._task.note(
            f"passed over the pipeline with logloss {candidate.loss:.5f}, which could not be fitted on all rows: "
            f"{outcome.words}"
        )
