"""Scores of one era, by numerai-tools, and their statistics over all eras.

numerai-tools asserts its preconditions. Where they fail, for one row or constant values, there is no score: NaN here,
null in the reports.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd  # type: ignore[import-untyped]
from numerai_tools.scoring import (
    correlation_contribution,
    feature_neutral_corr,
    numerai_corr,
    sharpe_ratio,
    spearman_correlation,
)
from scipy.special import ndtri
from scipy.stats import rankdata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray


def corr(predictions: NDArray[np.float64], targets: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute CORR, `numerai_corr` of numerai-tools: which weights the extreme predictions and targets.

    Parameters
    ----------
    predictions
        Shape (rows of an era, models); a model may be NaN in some rows, and is scored on the others.
    targets
        Without NaN, shape (rows of an era,).

    Returns
    -------
    numpy.ndarray of float64, shape (models,)
        In [-1, 1]; NaN for a model, or an era, that has less than two rows or two different values.
    """
    return _score_varying(predictions, targets, lambda _rows, truth, columns: numerai_corr(columns, truth))


def neutral_corr(
    predictions: NDArray[np.float64], features: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute FNC, `feature_neutral_corr` of numerai-tools: CORR of the predictions without their linear part.

    Parameters
    ----------
    predictions, targets
        As for `corr`.
    features
        Without NaN, shape (rows of an era, features).

    Returns
    -------
    numpy.ndarray of float64, shape (models,)
        NaN where it is undefined; also where there are not more rows than features, which explain everything.
    """

    def score(rows: NDArray[np.intp], truth: pd.Series, columns: pd.DataFrame) -> pd.Series:
        return feature_neutral_corr(columns, pd.DataFrame(features[rows]), truth)

    return _score_varying(predictions, targets, score, more_rows_than=features.shape[1] + 1)


def rank_correlation(predictions: NDArray[np.float64], anchor: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the rank correlation of models with another one, by `spearman_correlation` of numerai-tools.

    Parameters
    ----------
    predictions, anchor
        As for `contribution`.

    Returns
    -------
    numpy.ndarray of float64, shape (models,)
        In [-1, 1]; NaN where it is undefined.
    """
    scores = np.full(predictions.shape[1], np.nan)
    present = ~np.isnan(anchor)
    for models, rows in _scorable(np.where(present[:, np.newaxis], predictions, np.nan)):
        if _varies(anchor[rows]):
            other = pd.Series(anchor[rows])
            for model in models:
                if _varies(predictions[rows, model]):
                    scores[model] = spearman_correlation(other, pd.Series(predictions[rows, model]))
    return scores


class FastCorr:
    """CORR of means of ranks, equal to `corr` to 12 decimals, in a sixth of the time.

    CORR depends on ranks: the value of each rank after all transformations is computed once, and a score needs one
    sort. numerai-tools' assertions are not checked.

    Parameters
    ----------
    targets
        Without NaN, shape (rows of an era,).
    """

    def __init__(self, targets: NDArray[np.float64]) -> None:
        rows = len(targets)
        levels, codes = np.unique(targets, return_inverse=True)
        self._bits = int(len(levels) - 1).bit_length()
        # Numbers that differ by less than a step are equal: a mean of equal ranks may differ from them in the last
        # digits. Different means of fifty ranks among a million rows differ by more.
        is_small = self._bits <= 3
        self._dtype = np.dtype(np.int32 if is_small else np.int64)
        self._steps = 2.0**27 if is_small else 2.0**40
        self._codes = codes.astype(self._dtype)
        self._levels = _power(levels - targets.mean())
        self._levels -= self._levels[codes].mean()
        self._variance = float(np.sum(self._levels[codes] ** 2))
        # from twice a mean rank, at least 2, to its value
        self._values = _power(ndtri(np.arange(1, 2 * rows) / (2 * rows)))

    def __call__(self, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score means of ranks, in [0, 1], shape (models, rows of the era); NaN where `corr` is NaN."""
        models, rows = predictions.shape
        if len(self._levels) < 2:
            return np.full(models, np.nan)
        # a sort of numbers whose last bits are the target's level is faster than a sort of indices
        keys = (predictions * self._steps + 0.5).astype(self._dtype)
        keys <<= self._bits
        keys |= self._codes
        keys.sort(axis=1)
        levels = self._levels[keys & ((1 << self._bits) - 1)]
        keys >>= self._bits
        ties = _Ties.of(keys)
        values = self._values[ties.places]
        products, sums, squares = (
            np.add.reduceat(each, ties.of_model)
            for each in (
                values * np.add.reduceat(levels.ravel(), ties.first),
                values * ties.sizes,
                values * values * ties.sizes,
            )
        )
        variances = squares - sums * sums / rows
        variances[ties.groups == 1] = np.nan  # constant
        scores: NDArray[np.float64] = products / np.sqrt(variances * self._variance)
        return scores


def has_contribution(anchor: NDArray[np.float64], targets: NDArray[np.float64]) -> bool:
    """Check whether the contribution beyond another model is defined in an era; arguments as for `contribution`."""
    present = ~np.isnan(anchor)
    return int(np.count_nonzero(present)) > 1 and _varies(anchor[present]) and _varies(targets[present])


class FastContribution:
    """The contribution of means of ranks, equal to `contribution` to 12 decimals.

    It is linear in the Gaussian ranks of a model: each row's weight follows from the targets and the other model, and
    is computed once. A score needs one sort. numerai-tools' assertions are not checked.

    Parameters
    ----------
    anchor
        The other model's predictions, NaN where it has none, shape (rows of an era,).
    targets
        Without NaN, shape (rows of an era,). `has_contribution` holds for both.
    """

    def __init__(self, anchor: NDArray[np.float64], targets: NDArray[np.float64]) -> None:
        self._present = np.flatnonzero(~np.isnan(anchor))
        rows = len(self._present)
        # the row in the last bits of a number; numbers that differ by less than a step are equal
        self._bits = (rows - 1).bit_length()
        self._steps = 2.0 ** min(40, 61 - self._bits)
        self._values = ndtri(np.arange(1, 2 * rows) / (2 * rows))
        others = self._values[(2 * rankdata(anchor[self._present]) - 2).astype(np.intp)]
        centred = 4 * (targets[self._present] - targets[self._present].mean())
        self._weights = (centred - others * (centred @ others) / (others @ others)) / rows

    def __call__(self, predictions: NDArray[np.float64]) -> NDArray[np.float64]:
        """Score means of ranks, in [0, 1], shape (models, rows of the era)."""
        if len(self._present) < predictions.shape[1]:
            predictions = predictions[:, self._present]
        keys = (predictions * self._steps + 0.5).astype(np.int64)
        keys <<= self._bits
        keys |= np.arange(predictions.shape[1])
        keys.sort(axis=1)
        weights = self._weights[keys & ((1 << self._bits) - 1)]
        keys >>= self._bits
        ties = _Ties.of(keys)
        products = self._values[ties.places] * np.add.reduceat(weights.ravel(), ties.first)
        scores: NDArray[np.float64] = np.add.reduceat(products, ties.of_model)
        return scores


class _Ties(NamedTuple):
    """Groups of equal predictions among sorted ones, shape (models, rows), all models one after the other.

    Attributes
    ----------
    first, sizes, places : numpy.ndarray of int, shape (groups,)
        Index of the first prediction of each group, its size, and its index among the values of mean ranks: each group
        has its mean rank.
    of_model, groups : numpy.ndarray of int, shape (models,)
        Index of the first group of each model, and the number of its groups.
    """

    first: NDArray[np.intp]
    sizes: NDArray[np.intp]
    places: NDArray[np.intp]
    of_model: NDArray[np.intp]
    groups: NDArray[np.intp]

    @classmethod
    def of(cls, keys: NDArray[np.signedinteger[Any]]) -> _Ties:
        models, rows = keys.shape
        is_first = np.ones((models, rows), dtype=bool)
        np.not_equal(keys[:, 1:], keys[:, :-1], out=is_first[:, 1:])
        first = np.flatnonzero(is_first)
        sizes = np.diff(first, append=models * rows)
        of_model = np.searchsorted(first, np.arange(models) * rows)
        groups = np.diff(of_model, append=len(first))
        places = 2 * (first - np.repeat(np.arange(models) * rows, groups)) + sizes - 1
        return cls(first, sizes, places, of_model, groups)


def contribution(
    predictions: NDArray[np.float64], anchor: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute the contribution of models beyond another one, by `correlation_contribution` of numerai-tools.

    It is MMC for Numerai's meta model, BMC for a benchmark model.

    Parameters
    ----------
    predictions, targets
        As for `corr`.
    anchor
        The other model's predictions, NaN where it has none, shape (rows of an era,).

    Returns
    -------
    numpy.ndarray of float64, shape (models,)
        NaN where it is undefined.
    """
    scores = np.full(predictions.shape[1], np.nan)
    present = ~np.isnan(anchor)
    for models, rows in _scorable(np.where(present[:, np.newaxis], predictions, np.nan)):
        if _varies(anchor[rows]) and _varies(targets[rows]):
            frame = pd.DataFrame(predictions[np.ix_(rows, models)])
            other, truth = pd.Series(anchor[rows], name="anchor"), pd.Series(targets[rows], name="target")
            scores[models] = correlation_contribution(frame, other, truth).to_numpy()
    return scores


class Series(NamedTuple):
    """Statistics of a score over the eras that have one.

    Attributes
    ----------
    mean, std : float
        NaN when no era has a score. The standard deviation is the population's (divided by the number of eras).
    sharpe : float
        Mean over standard deviation, `sharpe_ratio` of numerai-tools; NaN when the latter is zero.
    max_drawdown : float
        The deepest fall of the running sum below its highest point so far, or below its start; 0 or more.
    positive : float
        Share of eras above zero, in [0, 1].
    """

    mean: float
    std: float
    sharpe: float
    max_drawdown: float
    positive: float

    @classmethod
    def of(cls, scores: NDArray[np.float64]) -> Series:
        """Compute the statistics of a score per era, shape (eras,), in the order of the eras; NaN where undefined."""
        known = scores[~np.isnan(scores)]
        if not len(known):
            return cls(*[float("nan")] * 5)
        std = float(np.std(known))
        running = np.concatenate([[0.0], np.cumsum(known)])
        return cls(
            mean=float(np.mean(known)),
            std=std,
            sharpe=float(sharpe_ratio(pd.Series(known))) if std > 0 else float("nan"),
            max_drawdown=float(np.max(np.maximum.accumulate(running) - running)),
            positive=float(np.mean(known > 0)),
        )


def _scorable(predictions: NDArray[np.float64]) -> Iterator[tuple[list[int], NDArray[np.intp]]]:
    """Group models by the rows they can be scored on: models with predictions for the same rows together."""
    missing = np.isnan(predictions)
    groups: dict[bytes, list[int]] = {}
    for model in range(predictions.shape[1]):
        groups.setdefault(missing[:, model].tobytes(), []).append(model)
    for models in groups.values():
        rows = np.flatnonzero(~missing[:, models[0]])
        if len(rows) > 1:
            yield models, rows


def _score_varying(
    predictions: NDArray[np.float64],
    targets: NDArray[np.float64],
    score: Callable[[NDArray[np.intp], pd.Series, pd.DataFrame], pd.Series],
    more_rows_than: int = 0,
) -> NDArray[np.float64]:
    """Score the models that vary, where the targets vary, by a function of the rows, their targets and the models."""
    scores = np.full(predictions.shape[1], np.nan)
    for models, rows in _scorable(predictions):
        varying = [model for model in models if _varies(predictions[rows, model])]
        if varying and _varies(targets[rows]) and len(rows) > more_rows_than:
            frame, truth = pd.DataFrame(predictions[np.ix_(rows, varying)]), pd.Series(targets[rows], name="target")
            scores[varying] = _each(frame, partial(score, rows, truth))
    return scores


def _power(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powers: NDArray[np.float64] = np.sign(values) * np.abs(values) ** 1.5
    return powers


def _varies(values: NDArray[np.float64]) -> bool:
    return bool(np.max(values) > np.min(values))


def _each(frame: pd.DataFrame, score: Callable[[pd.DataFrame], pd.Series]) -> NDArray[np.float64]:
    """Score all models at once, or each separately when one of them fails an assertion of numerai-tools."""
    try:
        return np.asarray(score(frame), dtype=np.float64)
    except AssertionError:
        if frame.shape[1] == 1:
            return np.array([np.nan])
        return np.concatenate([_each(frame[[model]], score) for model in frame])
