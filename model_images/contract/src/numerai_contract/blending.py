"""The blend of predictions for several targets: the mean of their ranks within each era.

Predictions for different targets have different scales and spreads; only their order in an era is comparable.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from numerai_contract.eras import rows_of_eras
from numerai_contract.scores import mean_ranks

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray


def blend(predictions: Iterable[NDArray[np.float64]], era_numbers: NDArray[np.int32]) -> NDArray[np.float64]:
    """Compute the mean of the ranks of predictions.

    Parameters
    ----------
    predictions
        Of each model, in any unit, shape (rows,); taken one after the other, so that only two are in memory.
    era_numbers
        The era of each row, shape (rows,). Live rows are one era.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
        Strictly between 0 and 1, with the mean 1/2 in every era: a share of an era's rows, and no probability.
    """
    total, count = np.zeros(len(era_numbers)), 0
    for each in predictions:
        total += era_ranks(each, era_numbers)
        count += 1
    return total / count


def era_ranks(predictions: NDArray[np.float64], era_numbers: NDArray[np.int32]) -> NDArray[np.float64]:
    """Rank predictions within each era.

    Parameters
    ----------
    predictions, era_numbers
        See `blend`.

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
        (rank - 1/2) / rows of the era, with ranks from 1; ties share their mean rank.
    """
    ranks = np.empty(len(predictions))
    for rows in rows_of_eras(era_numbers):
        ranks[rows] = (mean_ranks(predictions[rows]) - 0.5) / len(rows)
    return ranks
