"""Scores of predictions and features: the feature exposure, and FNC, in one pass over the features.

Feature exposure is, by era, the largest absolute correlation of the predictions with a feature:
`max_feature_correlation` of numerai-tools, for all models and features at once, with the features of only a batch of
rows in memory. FNC is CORR of the predictions without their linear part, `feature_neutral_corr` of numerai-tools. It
needs all features of an era, and its work grows with their square: where they are many, it is computed for the newest
eras only. A feature's missing values count as its mean in the era, where numerai-tools returns no result.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from ._metrics import neutral_corr

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView

    from ._targets import Era, KnownTargets

# a variance smaller than this, relative to the sum of squares, is a rounding error
_NO_VARIANCE = 1e-12
NEUTRAL_WORK = 52 * 6_700 * 780**2
"""Most rows of eras times the square of the features for FNC: 52 eras of the medium set, all eras of the small set."""
NEUTRAL_BYTES = 512 << 20
"""Most memory for features of eras that are not read to their end; eras of a sorted table are read one by one."""


class FeatureScores(NamedTuple):
    """Scores of each era and model.

    Attributes
    ----------
    exposure : numpy.ndarray of float64, shape (eras, models)
        The largest exposure, in [0, 1]; NaN where the predictions, or all features, are constant, or a prediction is
        missing.
    feature : numpy.ndarray of int, shape (eras, models)
        Index of the feature, undefined where `exposure` is NaN.
    fnc : numpy.ndarray of float64, shape (eras, models)
        NaN where it is undefined or was not computed.
    first_neutral : int
        Index of the first era for which it was computed.
    """

    exposure: NDArray[np.float64]
    feature: NDArray[np.intp]
    fnc: NDArray[np.float64]
    first_neutral: int


class _Sums:
    """Sums over the rows of one era read so far, of `features` features and `models` centred predictions."""

    def __init__(self, features: int, models: int) -> None:
        self.rows = 0
        self.known = np.zeros(features)
        self.values = np.zeros(features)
        self.squares = np.zeros(features)
        self.products = np.zeros((features, models))
        self.predictions = np.zeros((features, models))

    def add(self, features: NDArray[np.float64], predictions: NDArray[np.float64]) -> None:
        """Add rows: features of shape (rows, features), predictions of shape (rows, models)."""
        missing = np.isnan(features)
        filled = np.where(missing, 0.0, features)
        self.rows += len(features)
        self.known += len(features) - np.count_nonzero(missing, axis=0)
        self.values += filled.sum(axis=0)
        self.squares += np.einsum("rf,rf->f", filled, filled)
        self.products += filled.T @ predictions
        # centred predictions add up to zero over all rows: only missing values change the sum
        self.predictions -= missing.T.astype(np.float64) @ predictions if missing.any() else 0.0

    def correlations(self, norms: NDArray[np.float64]) -> NDArray[np.float64]:
        """Compute absolute correlations, shape (features, models), NaN for constants; `norms` are the predictions'."""
        means = self.values / np.maximum(self.known, 1)
        variances = self.squares - self.values * means
        variances[variances <= _NO_VARIANCE * self.squares] = np.nan
        norms = np.where(norms > 0, norms, np.nan)
        covariances = self.products - means[:, np.newaxis] * self.predictions
        found: NDArray[np.float64] = np.abs(covariances) / np.sqrt(variances[:, np.newaxis] * norms)
        return found


class _NeutralScorer:
    """Collects the features of eras, and scores an era in the background once it is complete.

    Parameters
    ----------
    eras
        The eras; those before `first` are left out.
    predictions
        Shape (rows of the table, models).
    pool
        The threads.
    waiting
        Most eras that wait for a thread.
    """

    def __init__(
        self,
        eras: tuple[Era, ...],
        predictions: NDArray[np.float64],
        first: int,
        pool: ThreadPoolExecutor,
        waiting: int,
    ) -> None:
        self.scores = np.full((len(eras), predictions.shape[1]), np.nan)
        self._eras, self._predictions, self._first = eras, predictions, first
        self._pool, self._waiting = pool, waiting
        self._blocks: dict[int, list[tuple[NDArray[np.intp], NDArray[np.float32]]]] = {}
        self._running: deque[Future[None]] = deque()

    def add(self, index: int, positions: NDArray[np.intp], features: NDArray[np.float64]) -> None:
        """Add rows of an era: their positions in the table, and their features of shape (rows, features)."""
        if index >= self._first:
            self._blocks.setdefault(index, []).append((positions, features.astype(np.float32)))

    def complete(self, index: int) -> None:
        """Score an era whose rows have all been added."""
        blocks = self._blocks.pop(index, None)
        if blocks is None:
            return
        if len(self._running) >= self._waiting:
            self._running.popleft().result()
        self._running.append(self._pool.submit(self._score, index, blocks))

    def finish(self) -> None:
        """Wait for all scores."""
        while self._running:
            self._running.popleft().result()

    def _score(self, index: int, blocks: list[tuple[NDArray[np.intp], NDArray[np.float32]]]) -> None:
        positions = np.concatenate([rows for rows, _ in blocks])
        order = np.argsort(positions)
        features = np.concatenate([block for _, block in blocks])[order].astype(np.float64)
        era = self._eras[index]
        self.scores[index] = neutral_corr(self._predictions[era.rows], _filled(features), era.targets)


def feature_scores(
    table: TableView,
    targets: KnownTargets,
    predictions: NDArray[np.float64],
    report: Callable[[float, str], object],
    threads: int = 1,
) -> FeatureScores:
    """Compute each model's largest exposure, and FNC, in each era.

    Parameters
    ----------
    table
        The rows that are scored.
    targets
        Its rows with a known target; other rows are ignored.
    predictions
        Shape (rows of the table, models).
    report
        Called with the share that is done and a description.
    threads
        Number of eras for which FNC is computed at a time.
    """
    eras, models, features = len(targets.eras), predictions.shape[1], len(table.feature_names)
    exposures, most_exposed = np.full((eras, models), np.nan), np.zeros((eras, models), dtype=np.intp)
    era_of = np.full(len(table), -1)
    # not zeros_like: a batch of its rows is read at a time, so these must be contiguous
    centred = np.zeros(predictions.shape)
    norms = np.zeros((eras, models))
    for index, era in enumerate(targets.eras):
        era_of[era.rows] = index
        values = predictions[era.rows]
        varies = np.max(values, axis=0) > np.min(values, axis=0)  # false where any is NaN
        centred[era.rows] = np.where(varies, values - values.mean(axis=0), 0.0)
        norms[index] = np.sum(centred[era.rows] ** 2, axis=0)
    sums: dict[int, _Sums] = {}
    seen = 0
    first_neutral = _first_neutral(targets.eras, features, in_order=bool((np.diff(era_of[era_of >= 0]) >= 0).all()))
    # a thread for each era: several for the small matrices of one are slower
    with threadpool_limits(1), ThreadPoolExecutor(threads) as pool:
        neutral = _NeutralScorer(targets.eras, predictions, first_neutral, pool, 2 * threads)
        for positions, block in table.batches(era_of >= 0):
            for index in np.unique(era_of[positions]):
                selected = era_of[positions] == index
                rows, values = positions[selected], block[selected].astype(np.float64)
                era_sums = sums.setdefault(int(index), _Sums(features, models))
                era_sums.add(values, centred[rows])
                neutral.add(int(index), rows, values)
                if era_sums.rows == len(targets.eras[index].rows):  # complete: store the result and drop the sums
                    correlations = sums.pop(int(index)).correlations(norms[index])
                    largest = np.where(np.isnan(correlations), -1.0, correlations)
                    most_exposed[index] = largest.argmax(axis=0)
                    best = largest.max(axis=0)
                    exposures[index] = np.where(best < 0, np.nan, np.minimum(best, 1.0))
                    neutral.complete(int(index))
            seen += len(positions)
            report(seen / len(targets.rows), f"feature exposure and FNC, {seen:,} rows")
        neutral.finish()
    return FeatureScores(exposures, most_exposed, neutral.scores, first_neutral)


def _first_neutral(eras: tuple[Era, ...], features: int, *, in_order: bool) -> int:
    """Return the index of the first era for which FNC is computed: the newest ones, at least one."""
    work = memory = 0
    for index in reversed(range(len(eras))):
        rows = len(eras[index].rows)
        work += rows * features**2
        memory += 0 if in_order else 4 * rows * features
        if (work > NEUTRAL_WORK or memory > NEUTRAL_BYTES) and index < len(eras) - 1:
            return index + 1
    return 0


def _filled(features: NDArray[np.float64]) -> NDArray[np.float64]:
    """Replace missing values by the feature's mean, or by 0 where it has none."""
    missing = np.isnan(features)
    if not missing.any():
        return features
    known = np.maximum(np.count_nonzero(~missing, axis=0), 1)
    means = np.where(missing, 0.0, features).sum(axis=0) / known
    return np.where(missing, means, features)
