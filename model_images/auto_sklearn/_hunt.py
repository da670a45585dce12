"""A search under somebody's eyes: its progress told, its models turned into predictions as it goes."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from numerai_contract.exits import ModelFailureError, NotEnoughMemoryError, TryAgainError
from numerai_contract.progress import duration

from ._ensemble import Forecast, Found, forecast
from ._search import metric_of, search
from ._workers import Worker

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence

    from numerai_contract.task import Task

    from ._plan import Lesson, Plan

# of the time spent, how much may go into predicting with what may yet be bettered
_FORECASTING_SHARE = 0.1


class Hunt:
    """A search, watched: its progress told, its models turned into predictions as it goes."""

    def __init__(self, task: Task, plan: Plan, lesson: Lesson, stop: Sequence[signal.Signals]) -> None:
        self._task, self._plan, self._stop = task, plan, stop
        self._found = Found(plan)
        self._seconds = 0.0
        self._held_out = lesson.labels[lesson.learning_rows :]
        self._forecaster: Worker | None = None
        self._forecasting: tuple[list[int], float] = [], 0.0
        self._forecast_of: list[int] = []
        self._forecast_seconds = 0.0
        self._result = plan.directory.with_name("forecast")
        features, labels, learning_rows = lesson.features, lesson.labels, lesson.learning_rows
        self._searcher = Worker(
            lambda tell: search(plan, features, labels, learning_rows, tell), plan.directory.with_name("search.log")
        )

    def search(self) -> None:
        """Watch the search until it ends, its time is up, or somebody asks to stop."""
        try:
            while self._searcher.at_work and not self._stop and time.monotonic() < self._plan.deadline:
                self._take_in(0.2)
                self._forecast_if_due()
                self._say()
            if not self._stop:
                self._take_in(0)
        finally:
            trouble = self._searcher.trouble
            self._searcher.end()
            self._seconds = time.monotonic() - self._plan.began
        self._say_how_it_ended(trouble)

    def last_forecast(self) -> Forecast:
        """Predict with all that was found; when asked to stop, give the last predictions there are."""
        wanted = [candidate.number for candidate in self._found.kept]
        if not self._stop and self._forecast_of != wanted:
            if self._forecaster is not None and self._forecasting[0] != wanted:
                self._forecaster.end()
                self._forecaster = None
            if self._forecaster is None:
                self._begin_forecast(niceness=0)
            while self._forecaster is not None and not self._stop:
                self._look_after_forecast(patience=0.2)
        if self._forecaster is not None:
            self._forecaster.end()
        last = Forecast.load(self._result)
        if self._stop:
            asked = f"stopped by {self._stop[0].name} after {self._seconds:.0f} s"
            if last is None:
                raise TryAgainError(f"{asked}, before the first model had predicted anything. Run it again.")
            self._task.note(f"{asked}: these are the predictions of the best ensemble so far")
        if last is None:
            raise ModelFailureError("no ensemble could predict the tournament; the lines above say why.")
        return last

    def chosen(self, best: Forecast) -> dict[str, Any]:
        """Put what was searched and found into a report's words."""
        plan, found = self._plan, self._found
        return {
            "task": plan.kind,
            "metric": metric_of(plan.kind).name,
            "search_seconds": self._seconds,
            "seconds_per_fit": plan.seconds_per_fit,
            "memory_per_fit_mib": plan.memory.part,
            "at_a_time": plan.memory.jobs,
            "runs": found.runs,
            "ensemble": {
                "held_out_loss": best.held_out_loss,
                "members": [{"weight": weight, **found.describe(number)} for number, weight in best.members],
            },
            "trajectory": found.trajectory,
            "candidates": found.candidates,
        }

    def _take_in(self, patience: float) -> None:
        for told in self._searcher.told(patience):
            self._found.add(told, time.monotonic() - self._plan.began)

    def _say(self) -> None:
        spent, limit = time.monotonic() - self._plan.began, self._plan.seconds
        found, run_limit = self._found, self._plan.run_limit
        best = "none yet" if found.best is None else f"{found.best:.4f}"
        of = "" if run_limit is None else f" of {run_limit:,}"
        share = spent / limit if run_limit is None else max(spent / limit, found.tried / run_limit)
        self._task.progress.update(
            min(share, 0.99),
            f"{spent:.0f} of {limit} s, {found.tried:,}{of} models tried, best held-out {self._measure} {best}",
        )

    @property
    def _measure(self) -> str:
        return "logloss" if self._plan.kind == "classifier" else "squared error"

    def _say_how_it_ended(self, trouble: str | None) -> None:
        found, task = self._found, self._task
        tried = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in found.runs.items())
        task.progress.say(f"searched for {duration(self._seconds)}: {tried}")
        if trouble is not None and found.kept:
            task.note(f"the search broke off after {duration(self._seconds)} ({trouble}); going on with what it found")
        if found.kept or self._stop:
            return
        if trouble is not None:
            failure = NotEnoughMemoryError if self._searcher.short_of_memory else ModelFailureError
            raise failure(f"auto-sklearn's search failed before the first model: {trouble}.")
        if found.runs["out_of_memory"]:
            raise NotEnoughMemoryError(
                f"none of {found.tried:,} candidates did with {self._plan.memory.part:,} MiB (or in its time). "
                "Give the model more memory in models.yaml, or a smaller ROW_LIMIT."
            )
        raise ModelFailureError(
            f"none of {found.tried:,} candidates was done in {self._plan.seconds_per_fit} s, all of them in "
            f"{duration(self._seconds)}. Give the search more time (automl_minutes), or a smaller ROW_LIMIT."
        )

    def _forecast_if_due(self) -> None:
        """Predict with what was found so far, unless that was done or costs too much of the search's time."""
        if self._forecaster is not None:
            self._look_after_forecast(patience=0)
            return
        spent = time.monotonic() - self._plan.began
        changed = [candidate.number for candidate in self._found.kept] != self._forecast_of
        if changed and self._forecast_seconds <= _FORECASTING_SHARE * spent:
            self._begin_forecast(niceness=10)

    def _begin_forecast(self, *, niceness: int) -> None:
        plan, kept, held_out, tournament = self._plan, list(self._found.kept), self._held_out, self._task.tournament
        self._forecaster = Worker(
            lambda _tell: forecast(plan, kept, held_out, tournament).save(self._result),
            plan.directory.with_name("forecast.log"),
            niceness=niceness,
        )
        self._forecasting = [candidate.number for candidate in kept], time.monotonic()
        self._found.in_use = frozenset(self._forecasting[0])

    def _look_after_forecast(self, *, patience: float) -> None:
        worker = self._forecaster
        if worker is None:
            return
        worker.told(patience)
        if worker.at_work:
            return
        numbers, since = self._forecasting
        self._forecast_seconds += time.monotonic() - since
        trouble = worker.trouble
        worker.end()
        self._forecaster, self._found.in_use = None, frozenset()
        # not tried again before something else was found
        self._forecast_of = numbers
        if trouble is not None:
            self._task.note(f"an ensemble could not predict: {trouble}")
