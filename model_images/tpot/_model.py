"""A fitted pipeline as the model of the operation, and its final fit."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

from threadpoolctl import threadpool_limits

from numerai_contract import saved_state
from numerai_contract.search import POLL_SECONDS, has_time
from numerai_contract.split_tables import FeatureSource

from ._cross_validation import probabilities, train_again
from ._search_runner import start_worker
from ._training_data import load_tables

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.split_tables import SplitTables
    from numerai_contract.tables import TableView
    from numerai_contract.task import Task
    from numerai_contract.workers import Outcome

    from ._budget import SearchPlan
    from ._training_data import ResourceBudget


class PipelineModel(NamedTuple):
    """A fitted pipeline with its preprocessing, and the names of the embeddings whose coordinates are features."""

    pipeline: Any
    embeddings: list[str]

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        source = FeatureSource.from_names(task, self.embeddings)
        # as in the search: another summation order changes the results of some learners
        with threadpool_limits(1):
            return task.predict_rows(table, source.batches(table), lambda block: probabilities(self.pipeline, block))

    def save(self, directory: Path) -> None:
        """Save the pipeline as an estimator of scikit-learn."""
        saved_state.save_estimator(directory, self.pipeline)
        saved_state.save(directory, {}, {"embeddings": self.embeddings})

    @classmethod
    def load(cls, directory: Path) -> PipelineModel:
        """Load what `save` has saved."""
        return cls(saved_state.load_estimator(directory), saved_state.load(directory).settings["embeddings"])


def refit(
    task: Task,
    plan: SearchPlan,
    budget: ResourceBudget,
    first: PipelineModel,
    limits: Sequence[int],
    stop: Sequence[signal.Signals],
) -> tuple[PipelineModel, int]:
    """Fit the pipeline of the first fit on more and more rows of both tables, for at most the time of the search.

    The model is that of the largest fit. Where none succeeds, return the first model, with a note.

    Parameters
    ----------
    task
        For its tables and notes.
    plan, budget
        Of the search.
    first
        The model of the first fit.
    limits
        Numbers of rows, ascending.
    stop
        The stop requests.

    Returns
    -------
    model : PipelineModel
    rows : int
        Its number of training rows; 0 of the first model.
    """
    end = time.monotonic() + plan.seconds
    model, trained_rows, seconds = first, 0, 0.0
    reason = "there was no time for it"
    for limit in limits:
        tables = load_tables(task, limit)
        rows, began = len(tables.training_labels), time.monotonic()
        if rows == trained_rows or not has_time(trained_rows, rows, seconds, end - began):
            break
        with task.progress.step(f"fitting the best pipeline on {rows:,} rows"):
            outcome = _fit(plan, budget, first, tables, max(end - began, 1), stop)
        seconds = time.monotonic() - began
        if outcome is None or outcome.status != "succeeded":
            reason = outcome.reason if outcome is not None else f"stopped by {stop[0].name}"
            task.progress.log(f"the best pipeline on {rows:,} rows: {reason}")
            break
        model, trained_rows = first._replace(pipeline=outcome.value), rows
    if not trained_rows:
        task.note(f"no final fit, using the first: {reason}")
    return model, trained_rows


def _fit(
    plan: SearchPlan,
    budget: ResourceBudget,
    first: PipelineModel,
    tables: SplitTables,
    seconds: float,
    stop: Sequence[signal.Signals],
) -> Outcome | None:
    worker = start_worker(lambda: train_again(first.pipeline, tables), plan, budget.whole_memory, seconds)
    try:
        while (outcome := worker.poll()) is None and not stop:
            worker.wait(POLL_SECONDS)
    finally:
        worker.end()
    return outcome
