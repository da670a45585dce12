"""Scores of predictions: logloss and consistency, as Numerai used in 2018, and rank correlation."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numerai_contract.eras import rows_of_eras

if TYPE_CHECKING:
    from numpy.typing import NDArray

# the logloss of a constant 0.5; consistency counts eras with a lower one
COIN_TOSS = math.log(2)
_EPSILON = float(np.finfo(np.float64).eps)


class Scores(NamedTuple):
    """Scores on rows whose target is known.

    Attributes
    ----------
    rows, eras : int
        Numbers of rows and eras scored.
    logloss : float or None
        In nats, against target > 0.5; rows at exactly 0.5 are left out. None when no row remains.
    consistency : float or None
        Share of eras whose logloss is below ln 2, in [0, 1]. None when `logloss` is.
    correlation : float or None
        Mean over the eras of Spearman's rank correlation between prediction and target, in [-1, 1]. None when no era
        has two different targets and two different predictions.
    """

    rows: int
    eras: int
    logloss: float | None
    consistency: float | None
    correlation: float | None


def score(
    predictions: NDArray[np.float64], targets: NDArray[np.float32], era_numbers: NDArray[np.int32]
) -> Scores | None:
    """Score predictions era by era.

    Parameters
    ----------
    predictions
        In (0, 1), shape (rows,).
    targets
        In [0, 1], NaN where unknown, shape (rows,). Rows without a target are left out.
    era_numbers
        The era of each row, shape (rows,).

    Returns
    -------
    Scores or None
        None when no target is known.
    """
    known = ~np.isnan(targets)
    if not known.any():
        return None
    predictions, targets, era_numbers = predictions[known], targets[known], era_numbers[known]
    by_era = rows_of_eras(era_numbers)
    losses: list[float] = []
    correlations: list[float] = []
    for rows in by_era:
        loss = logloss(predictions[rows], targets[rows])
        correlation = rank_correlation(predictions[rows], targets[rows])
        if loss is not None:
            losses.append(loss)
        if correlation is not None:
            correlations.append(correlation)
    return Scores(
        rows=len(targets),
        eras=len(by_era),
        logloss=logloss(predictions, targets),
        consistency=float(np.mean(np.array(losses) < COIN_TOSS)) if losses else None,
        correlation=float(np.mean(correlations)) if correlations else None,
    )


def logloss(predictions: NDArray[np.float64], targets: NDArray[np.float32]) -> float | None:
    """Compute the mean of -log of the probability of the true class (target > 0.5 or not).

    Rows at exactly 0.5 are left out; None when no row remains. Predictions lie in [0, 1]; a probability of 0 for the
    true class costs 36 nats instead of infinitely many: it counts as float64's epsilon, as in scikit-learn.
    """
    labeled = targets != 0.5
    if not labeled.any():
        return None
    given = np.where(targets[labeled] > 0.5, predictions[labeled], 1 - predictions[labeled])
    return float(-np.mean(np.log(np.maximum(given, _EPSILON))))


def rank_correlation(first: NDArray[np.float64], second: NDArray[np.float32]) -> float | None:
    """Compute Spearman's rank correlation, ties sharing their mean rank; None when either side is constant."""
    centred = [side - side.mean() for side in (mean_ranks(first), mean_ranks(second))]
    norm = math.sqrt(float(np.sum(centred[0] ** 2)) * float(np.sum(centred[1] ** 2)))
    return float(np.sum(centred[0] * centred[1])) / norm if norm > 0 else None


def mean_ranks(values: NDArray[np.float64] | NDArray[np.float32]) -> NDArray[np.float64]:
    """Rank values from 1, shape (rows,); ties share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    # the mean rank of a group of ties: the rank of its last member, less half its size
    means: NDArray[np.float64] = np.cumsum(counts) - (counts - 1) / 2
    return means[np.reshape(inverse, -1)]
