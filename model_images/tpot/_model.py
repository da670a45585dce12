"""A fitted pipeline as the model of the operation, and its final fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from threadpoolctl import threadpool_limits

from numerai_contract import saved_state
from numerai_contract.search import POLL_SECONDS
from numerai_contract.split_tables import FeatureSource

from ._cross_validation import probabilities, train_again
from ._search_runner import start_worker

if TYPE_CHECKING:
    import signal
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.split_tables import SplitTables
    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

    from ._plan import Plan
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
    plan: Plan,
    budget: ResourceBudget,
    first: PipelineModel,
    tables: SplitTables,
    stop: Sequence[signal.Signals],
) -> PipelineModel:
    """Fit the pipeline of the first fit on all rows, for at most the time of the search.

    Where that fails, or at a stop request, return the first model, with a note.
    """
    worker = start_worker(lambda: train_again(first.pipeline, tables), plan, budget.whole_memory, plan.seconds)
    try:
        while (outcome := worker.poll()) is None and not stop:
            worker.wait(POLL_SECONDS)
    finally:
        worker.end()
    if outcome is not None and outcome.status == "succeeded":
        return first._replace(pipeline=outcome.value)
    reason = outcome.reason if outcome is not None else f"stopped by {stop[0].name}"
    task.note(f"no final fit, using the first: {reason}")
    return first
