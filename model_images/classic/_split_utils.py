"""Helpers of the models that learn on the split: the default row limit, and predicting the tournament."""

from __future__ import annotations

from typing import TYPE_CHECKING

from numerai_contract import batches

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.split_tables import SplitTables
    from numerai_contract.task import Task

# the least default: fewer rows are not enough to learn such a weak signal
_MIN_ROWS = 20_000


def row_limit(work_per_row: int, max_work: int) -> int:
    """Return a default of ROW_LIMIT: as many rows as the work allows, but at least 20,000.

    Parameters
    ----------
    work_per_row
        The cost of a row in time or memory, such as the square of the number of features.
    max_work
        The maximum cost of all rows, in the same unit.
    """
    return max(_MIN_ROWS, max_work // work_per_row)


def predict(
    task: Task, tables: SplitTables, model: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Predict the tournament rows, in their order; shape (rows of the tournament table,).

    Parameters
    ----------
    task
        For its tournament table and its log.
    tables
        The source of the features.
    model
        From features, shape (rows, columns), NaN where a value is missing, to probabilities, shape (rows,).
    """
    rows = len(task.tournament)
    with task.progress.step(f"predicting {rows:,} rows"):
        return batches.predict(tables.tournament_batches(), rows, model, report=task.progress.update)
