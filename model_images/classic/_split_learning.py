"""What models that learn on the split share: how many rows, missing values filled, the tournament batch by batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.split_tables import SplitTables
    from numerai_contract.task import Task

# fewer rows than this are never a default: they would teach too little of a signal this weak
_FEWEST_ROWS = 20_000


def row_limit(work_of_a_row: int, most_work: int) -> int:
    """Choose a default of ROW_LIMIT: as many rows as the work allows, but 20,000 at least.

    Parameters
    ----------
    work_of_a_row
        What a row costs in time or memory, such as the square of the number of features.
    most_work
        What all rows may cost, in the same unit.
    """
    return max(_FEWEST_ROWS, most_work // work_of_a_row)


class Medians:
    """Fills what is missing with the median of the rows to learn from; with 0 in a column that is missing everywhere.

    Parameters
    ----------
    matrix
        The rows to learn from, shape (rows, columns), NaN where a value is missing.
    """

    def __init__(self, matrix: NDArray[np.float32]) -> None:
        self._values = np.zeros(matrix.shape[1], dtype=np.float32)
        # by column: the median of all at once would copy the matrix
        for column, values in enumerate(matrix.T):
            known = values[~np.isnan(values)]
            if len(known):
                self._values[column] = np.median(known)

    def fill(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fill a matrix of shape (rows, columns) in place and return it."""
        rows, columns = np.nonzero(np.isnan(matrix))
        matrix[rows, columns] = self._values[columns]
        return matrix


def predict(
    task: Task, tables: SplitTables, model: Callable[[NDArray[np.float32]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Predict the tournament rows, in their order.

    Parameters
    ----------
    task
        Whose tournament table, and whose progress.
    tables
        Where the features come from.
    model
        Turns features, shape (rows, columns), NaN where a value is missing, into probabilities, shape (rows,).

    Returns
    -------
    numpy.ndarray of float64, shape (rows of the tournament table,)
    """
    probabilities = np.empty(len(task.tournament))
    with task.progress.step(f"predicting {len(probabilities):,} rows"):
        for positions, block in tables.tournament_batches():
            probabilities[positions] = model(block)
            done = int(positions[-1]) + 1
            task.progress.update(done / len(probabilities), f"row {done:,} of {len(probabilities):,}")
    return probabilities
