"""Feature exposure: the largest correlation of a model's predictions with a single feature.

By era, the largest absolute correlation of the predictions with a feature: `max_feature_correlation` of numerai-tools,
for all models and features at once, with the features of only a batch of rows in memory. A feature's missing values
count as its mean in the era, where numerai-tools returns no result.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView

    from ._targets import KnownTargets

# a variance smaller than this, relative to the sum of squares, is a rounding error
_NO_VARIANCE = 1e-12


class Exposure(NamedTuple):
    """The largest exposures.

    Attributes
    ----------
    largest : numpy.ndarray of float64, shape (eras, models)
        In [0, 1]; NaN where the predictions, or all features, are constant, or a prediction is missing.
    feature : numpy.ndarray of int, shape (eras, models)
        Index of the feature, undefined where `largest` is NaN.
    """

    largest: NDArray[np.float64]
    feature: NDArray[np.intp]


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


def exposure(
    table: TableView, targets: KnownTargets, predictions: NDArray[np.float64], report: Callable[[float, str], object]
) -> Exposure:
    """Find each model's largest exposure in each era.

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
    """
    eras, models, features = len(targets.eras), predictions.shape[1], len(table.feature_names)
    found = Exposure(np.full((eras, models), np.nan), np.zeros((eras, models), dtype=np.intp))
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
    for positions, block in table.batches(era_of >= 0):
        for index in np.unique(era_of[positions]):
            selected = era_of[positions] == index
            era_sums = sums.setdefault(int(index), _Sums(features, models))
            era_sums.add(block[selected].astype(np.float64), centred[positions[selected]])
            if era_sums.rows == len(targets.eras[index].rows):  # complete: store the result and drop the sums
                correlations = sums.pop(int(index)).correlations(norms[index])
                largest = np.where(np.isnan(correlations), -1.0, correlations)
                found.feature[index] = largest.argmax(axis=0)
                best = largest.max(axis=0)
                found.largest[index] = np.where(best < 0, np.nan, np.minimum(best, 1.0))
        seen += len(positions)
        report(seen / len(targets.rows), f"feature exposure, {seen:,} rows")
    return found
