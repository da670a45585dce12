"""The criteria of 2018, computed from a predictions file, for targets of 0 and 1.

*Logloss* on the validation rows; *consistency*, the share of validation eras with a logloss below ln 2, that of
a constant 0.5 (the threshold was 75 %); *concordance*, whether the predictions on validation, test and live have the
same distribution (two-sample Kolmogorov-Smirnov test); *originality*, whether the model is not a near copy of another
one (rank correlation below .95). Logloss is computed by the contract package (`numerai_contract.scores`); the last two
need no target and are computed for every model.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.stats import ks_2samp, rankdata

from numerai_contract.predictions import CLIP_MARGIN
from numerai_contract.scores import COIN_TOSS, logloss

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from ._targets import Era

COMPARED = ("validation", "test", "live")
# Numerai's threshold of the statistic; Numerai compared clusters of rows, this module compares all rows
MAX_DIFFERENCE = 0.12
# with few rows the statistic is large by chance
SIGNIFICANT = 0.05
NEAR_COPY = 0.95
_MOST_AT_ONCE = 4


class Losses(NamedTuple):
    """Logloss of a model.

    Attributes
    ----------
    of_eras : list of float or None
        For each era, in nats.
    logloss : float or None
        Over all rows.
    consistency : float or None
        Share of eras below ln 2, in [0, 1].
    """

    of_eras: list[float | None]
    logloss: float | None
    consistency: float | None


def losses(predictions: NDArray[np.float64], eras: tuple[Era, ...]) -> Losses:
    """Compute a model's logloss on targets of 0 and 1.

    Parameters
    ----------
    predictions
        Shape (rows,); rows where it is NaN are left out. All in [0, 1], or there is no logloss.
    eras
        The known targets.
    """
    present = predictions[~np.isnan(predictions)]
    if not len(present) or np.min(present) < 0 or np.max(present) > 1:
        return Losses([None] * len(eras), None, None)
    clipped = predictions.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)
    of_eras, given, true = [], [], []
    for era in eras:
        known = ~np.isnan(clipped[era.rows])
        given.append(clipped[era.rows][known])
        true.append(era.targets[known].astype(np.float32))
        of_eras.append(logloss(given[-1], true[-1]) if known.any() else None)
    scored = [loss for loss in of_eras if loss is not None]
    if not scored:
        return Losses(of_eras, None, None)
    overall = logloss(np.concatenate(given), np.concatenate(true))
    return Losses(of_eras, overall, float(np.mean(np.array(scored) < COIN_TOSS)))


class Concordance(NamedTuple):
    """The similarity of the predictions on validation, test and live.

    Attributes
    ----------
    statistic : float
        The largest distance between the distributions of two of them, in [0, 1].
    concordant : bool
        Whether the distance of every pair is less than `MAX_DIFFERENCE`, or not significant.
    """

    statistic: float
    concordant: bool


def concordance(parts: Mapping[str, NDArray[np.float64]]) -> Concordance | None:
    """Compare a model's predictions on validation, test and live rows; None unless two of them have predictions.

    Parameters
    ----------
    parts
        Data type, of `COMPARED` → predictions, shape (rows,).
    """
    present = [part for part in parts.values() if len(part)]
    tests = [ks_2samp(first, second, method="asymp") for first, second in combinations(present, 2)]
    if not tests:
        return None
    differ = any(test.statistic >= MAX_DIFFERENCE and test.pvalue < SIGNIFICANT for test in tests)
    return Concordance(max(float(test.statistic) for test in tests), not differ)


def rank_correlations(predictions: NDArray[np.float64], threads: int = 1) -> NDArray[np.float64]:
    """Compute Spearman's correlation of each model with each.

    Parameters
    ----------
    predictions
        Shape (rows, models); only rows that all models have are compared, the others have a NaN.
    threads
        Number of models that are ranked at a time; at most `_MOST_AT_ONCE`, for the memory of their sorts.

    Returns
    -------
    numpy.ndarray of float64, shape (models, models)
        NaN for a constant.
    """
    rows = ~np.isnan(predictions).any(axis=1)
    ranks = np.empty((np.count_nonzero(rows), predictions.shape[1]), order="F")

    def rank(model: int) -> None:
        ranks[:, model] = rankdata(predictions[rows, model])
        ranks[:, model] -= ranks[:, model].mean()

    with ThreadPoolExecutor(min(threads, _MOST_AT_ONCE)) as pool:
        list(pool.map(rank, range(predictions.shape[1])))
    norms = np.sqrt(np.sum(ranks**2, axis=0))
    ranks /= np.where(norms > 0, norms, np.nan)
    matrix: NDArray[np.float64] = np.clip(ranks.T @ ranks, -1.0, 1.0)
    return matrix


class Originality(NamedTuple):
    """The other model with the highest correlation.

    Attributes
    ----------
    largest : float
        Rank correlation with it, in [-1, 1].
    most_like : str
        Its name.
    original : bool
        Whether the correlation is below `NEAR_COPY`.
    """

    largest: float
    most_like: str
    original: bool


def originality(
    index: int, correlations: NDArray[np.float64], names: list[str], others: list[int]
) -> Originality | None:
    """Find the model most similar to the one at `index` among `others` (indices); None without a comparable one."""
    comparable = [other for other in others if other != index and not np.isnan(correlations[index, other])]
    if not comparable:
        return None
    nearest = max(comparable, key=lambda other: correlations[index, other])
    largest = float(correlations[index, nearest])
    return Originality(largest, names[nearest], largest < NEAR_COPY)
