"""Searches for a model: predictions with the best candidate so far, made beside the search.

The result of a search must be available whenever it ends: at its limit, or at a stop request. So the best candidate so
far predicts in the background while the search continues.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from numerai_contract.exits import ModelFailureError, TryAgainError
from numerai_contract.progress import duration

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.fitting import Model
    from numerai_contract.tables import Table, TableView
    from numerai_contract.task import Task
    from numerai_contract.workers import Outcome

CandidateT = TypeVar("CandidateT")
JobT = TypeVar("JobT", bound="Job")

# seconds between two checks of a clock, of stop requests and of workers
POLL_SECONDS = 0.2
_GROWTH = 4


class Job(Protocol):
    """Predictions in the making, such as a `numerai_contract.workers.Worker`."""

    def wait(self, timeout: float) -> None:
        """Wait for the outcome, at most `timeout` seconds."""

    def poll(self) -> Outcome | None:
        """Return the outcome; None while the job is running, or when it was ended without one."""

    def end(self) -> None:
        """End the job."""


def growing_rows(least: int, most: int) -> list[int]:
    """Return the numbers of rows of the fits with which a search's best model is trained again; the last is `most`.

    Each fit has at most four times as many rows as the one before. So there is a model at any end of the time, and all
    fits before the last one take a third of its time, where the time grows with the rows.
    """
    rows = [most]
    while rows[0] > 2 * least:
        rows.insert(0, max(rows[0] // _GROWTH, least))
    return rows


def has_time(rows: int, more: int, seconds: float, remaining: float) -> bool:
    """Return whether a fit on more rows can end in the remaining seconds, by the seconds of a fit on some rows."""
    return seconds * more / max(rows, 1) <= remaining


def table_to_predict(task: Task) -> Table:
    """Return the table that a first fit predicts: the validation table, or the rows of TESTING without one."""
    return task.validation if task.has_validation else task.testing


class SearchedModel:
    """The model of a search, with the predictions that it has made beside the search.

    Parameters
    ----------
    model
        The model.
    predicted
        The table of the predictions.
    predictions
        In [0, 1], shape (rows of `predicted`,).
    """

    def __init__(self, model: Model, predicted: Table, predictions: NDArray[np.float64]) -> None:
        self._model, self._path, self._predictions = model, predicted.path, predictions

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return self._predictions if table.path == self._path else self._model.predict(task, table)

    def save(self, directory: Path) -> None:
        """Save the model."""
        self._model.save(directory)


class BackgroundPredictor(Generic[CandidateT, JobT]):
    """Predicts with the best candidate so far beside a search, in a limited share of the search's time.

    Parameters
    ----------
    start
        Starts a job for a candidate; the second argument is whether the search is still running.
    on_done
        Called with a candidate and the outcome of its job. The value of an outcome that succeeded are the predictions.
    elapsed
        Returns the seconds that the search has had so far, of all cores when the outcomes count processor seconds.
    share
        The share of `elapsed` that all jobs may take together.
    headroom
        A job starts only when the share has room for this many times the cost of the last job.

    Attributes
    ----------
    latest : tuple or None
        The last candidate that predicted, and its predictions.
    job : Job or None
        The running job.
    """

    def __init__(
        self,
        start: Callable[[CandidateT, bool], JobT],
        *,
        on_done: Callable[[CandidateT, Outcome], None],
        elapsed: Callable[[], float],
        share: float,
        headroom: float = 0.0,
    ) -> None:
        self.latest: tuple[CandidateT, Any] | None = None
        self.job: JobT | None = None
        self._start, self._on_done, self._elapsed = start, on_done, elapsed
        self._share, self._headroom = share, headroom
        self._candidate: CandidateT | None = None
        self._failed: list[CandidateT] = []
        self._spent = self._last_cost = 0.0

    def pending(self, ranked: Sequence[CandidateT]) -> CandidateT | None:
        """Return the best candidate that can predict, unless `latest` has its predictions; `ranked` is best first."""
        best = next((candidate for candidate in ranked if candidate not in self._failed), None)
        return None if self.latest is not None and best == self.latest[0] else best

    def update(self, ranked: Sequence[CandidateT]) -> None:
        """Collect a finished job, and start one for the best candidate if it is due; call this often."""
        if self.job is not None and not self._collect():
            return
        candidate = self.pending(ranked)
        due = self._spent + self._headroom * self._last_cost <= self._share * self._elapsed()
        if candidate is not None and due:
            self._begin(candidate, search_is_running=True)

    def finish(self, ranked: Callable[[], Sequence[CandidateT]], is_over: Callable[[], bool]) -> None:
        """Predict with the best candidate, or the next one where it fails, until `is_over` returns True."""
        try:
            if self.latest is not None and self.job is not None and self._candidate != self.pending(ranked()):
                self.end()
            while not is_over():
                if self.job is None:
                    candidate = self.pending(ranked())
                    if candidate is None:
                        break
                    self._begin(candidate, search_is_running=False)
                elif not self._collect():
                    self.job.wait(POLL_SECONDS)
        finally:
            self.end()

    def end(self) -> None:
        """End the running job; an outcome that it has by then counts."""
        if self.job is not None and not self._collect():
            self.job.end()
            self._collect()
            self.job = None

    def result(
        self,
        task: Task,
        stop: Sequence[signal.Signals],
        seconds: float,
        *,
        noun: str = "model",
        describe: Callable[[CandidateT], str] = lambda _candidate: "the best model so far",
    ) -> tuple[CandidateT, Any]:
        """Return the last candidate and its outcome; note in the report when a stop request ended the search.

        Parameters
        ----------
        task
            For the note.
        stop
            The stop requests.
        seconds
            The time that the search took.
        noun, describe
            For messages: the kind of candidates, and the last candidate.

        Raises
        ------
        TryAgainError
            When there are no predictions at a stop request.
        ModelFailureError
            When no candidate could predict.
        """
        if stop:
            stopped = f"stopped by {stop[0].name} after {duration(seconds)}"
            if self.latest is None:
                raise TryAgainError(f"{stopped}, before the first {noun} had predicted anything. Run it again.")
            task.note(f"{stopped}: using {describe(self.latest[0])}")
        if self.latest is None:
            raise ModelFailureError(
                f"no {noun} could predict anything; see the lines above for the reasons. "
                "Another attempt would find the same: give it more time (automl_minutes), or a smaller ROW_LIMIT."
            )
        return self.latest

    def _begin(self, candidate: CandidateT, *, search_is_running: bool) -> None:
        self._candidate = candidate
        self.job = self._start(candidate, search_is_running)

    def _collect(self) -> bool:
        """Take the outcome of the running job; return whether there is one."""
        if self.job is None or self._candidate is None:
            return False
        outcome = self.job.poll()
        if outcome is None:
            return False
        candidate, self.job = self._candidate, None
        self._spent += outcome.seconds
        self._last_cost = outcome.seconds
        if outcome.status == "succeeded":
            self.latest = candidate, outcome.value
        else:
            self._failed.append(candidate)
        self._on_done(candidate, outcome)
        return True


def log_outcomes(task: Task, seconds: float, counts: Mapping[str, int]) -> None:
    """Log the duration of a search, and its number of candidates in total and by outcome."""
    listed = ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items())
    task.progress.log(f"searched for {duration(seconds)}: {listed}")


def log_progress(
    task: Task, *, spent: float, seconds: float, tried: int, run_limit: int | None, noun: str, state: str
) -> None:
    """Log the progress of a search, unless a line was printed a moment ago.

    Parameters
    ----------
    task
        For its log.
    spent, seconds
        The time the search has taken, and its limit.
    tried, run_limit
        The number of candidates tried, and its limit if there is one.
    noun
        The kind of candidates, in the plural.
    state
        The best result so far, for the end of the line.
    """
    share = spent / seconds
    limit = ""
    if run_limit is not None:
        share, limit = max(share, tried / run_limit), f" of {run_limit:,}"
    task.progress.update(min(share, 0.99), f"{spent:.0f} of {seconds} s, {tried:,}{limit} {noun} tried, {state}")
