"""Feature exposure: how much of a model's predictions a single feature tells.

By era, the largest absolute correlation of the predictions with a feature: `max_feature_correlation` of numerai-tools,
for all models and features at once and without holding the features of more than a batch of rows. A feature's missing
values count as its mean in the era; there, numerai-tools has no answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

    from ._truth import Truth

# a variance this small against the sum of squares is what rounding leaves of none
_NO_VARIANCE = 1e-12


class Exposure(NamedTuple):
    """What was found.

    Attributes
    ----------
    largest : numpy.ndarray of float64, shape (eras, models)
        In [0, 1]; NaN where the predictions, or all features, are constant, or the predictions are not all there.
    feature : numpy.ndarray of int, shape (eras, models)
        Which feature that is, meaningless where `largest` is NaN.
    """

    largest: NDArray[np.float64]
    feature: NDArray[np.intp]


class _Sums:
    """Sums over the rows of one era seen so far, of `features` features and `models` centred predictions."""

    def __init__(self, features: int, models: int) -> None:
        self.rows = 0
        self.known = np.zeros(features)
        self.values = np.zeros(features)
        self.squares = np.zeros(features)
        self.products = np.zeros((features, models))
        self.predictions = np.zeros((features, models))

    def add(self, features: NDArray[np.float64], predictions: NDArray[np.float64]) -> None:
        """Add rows: features of shape (rows, features), predictions of shape (rows, models)."""
        absent = np.isnan(features)
        filled = np.where(absent, 0.0, features)
        self.rows += len(features)
        self.known += len(features) - np.count_nonzero(absent, axis=0)
        self.values += filled.sum(axis=0)
        self.squares += np.einsum("rf,rf->f", filled, filled)
        self.products += filled.T @ predictions
        # centred predictions add up to zero over all rows: only where values are missing is there something to count
        self.predictions -= absent.T.astype(np.float64) @ predictions if absent.any() else 0.0

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
    table: Table, truth: Truth, predictions: NDArray[np.float64], report: Callable[[float, str], object]
) -> Exposure:
    """Find each model's largest exposure in each era.

    Parameters
    ----------
    table
        The tournament table.
    truth
        Its rows with a known target; the others are not looked at.
    predictions
        Shape (rows of the table, models).
    report
        Told how far it is: share and words.
    """
    eras, models, features = len(truth.eras), predictions.shape[1], len(table.feature_names)
    found = Exposure(np.full((eras, models), np.nan), np.zeros((eras, models), dtype=np.intp))
    era_of = np.full(len(table), -1)
    centred = np.zeros_like(predictions)
    norms = np.zeros((eras, models))
    for place, era in enumerate(truth.eras):
        era_of[era.rows] = place
        values = predictions[era.rows]
        varies = np.max(values, axis=0) > np.min(values, axis=0)  # false where any is NaN
        centred[era.rows] = np.where(varies, values - values.mean(axis=0), 0.0)
        norms[place] = np.sum(centred[era.rows] ** 2, axis=0)
    sums: dict[int, _Sums] = {}
    seen = 0
    for positions, block in table.batches(era_of >= 0):
        for place in np.unique(era_of[positions]):
            mine = era_of[positions] == place
            era_sums = sums.setdefault(int(place), _Sums(features, models))
            era_sums.add(block[mine].astype(np.float64), centred[positions[mine]])
            if era_sums.rows == len(truth.eras[place].rows):  # complete: keep the answer, not the sums
                correlations = sums.pop(int(place)).correlations(norms[place])
                largest = np.where(np.isnan(correlations), -1.0, correlations)
                found.feature[place] = largest.argmax(axis=0)
                best = largest.max(axis=0)
                found.largest[place] = np.where(best < 0, np.nan, np.minimum(best, 1.0))
        seen += len(positions)
        report(seen / len(truth.rows), f"feature exposure, {seen:,} rows")
    return found
