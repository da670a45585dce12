"""The mean CORR of the eras, Numerai's score, by which boosted trees may stop.

CORR is that of ``numerai_corr`` of numerai-tools: the correlation of the Gaussian ranks of the predictions with the
target, centred, both to the power of 1.5. Equal predictions share their mean rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import ndtri

from numerai_contract.eras import rows_of_eras

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POWER = 1.5


class EraCorr:
    """Scores predictions of held-out rows.

    Parameters
    ----------
    targets
        Without NaN, shape (rows,).
    era_numbers
        The era of each row, shape (rows,).
    every
        Only every so many calls compute the score; the others return the last one.
    """

    def __init__(self, targets: NDArray[np.float32], era_numbers: NDArray[np.int32], *, every: int = 1) -> None:
        self._every, self._calls, self._last = every, 0, 0.0
        self._eras = []
        for rows in rows_of_eras(era_numbers):
            centred = _power(targets[rows].astype(np.float64) - targets[rows].mean(dtype=np.float64))
            centred -= centred.mean()
            norm = float(np.linalg.norm(centred))
            # an era of one row, or of equal targets, has no CORR
            if norm > 0:
                self._eras.append((rows, centred / norm))

    def __call__(self, predictions: NDArray[np.floating]) -> float:
        """Return the mean over the eras of the CORR of predictions, shape (rows,), in [-1, 1]."""
        if self._calls % self._every == 0:
            self._last = self._mean(predictions)
        self._calls += 1
        return self._last

    def _mean(self, predictions: NDArray[np.floating]) -> float:
        scores = [self._of_era(predictions[rows], target) for rows, target in self._eras]
        return float(np.mean(scores)) if scores else 0.0

    def _of_era(self, predictions: NDArray[np.floating], target: NDArray[np.float64]) -> float:
        _, inverse, counts = np.unique(predictions, return_inverse=True, return_counts=True)
        # the mean rank of equal predictions: the last one's, less half of their number
        ranks = np.cumsum(counts) - counts / 2
        values = _power(ndtri(ranks / len(predictions)))[inverse]
        values -= values.mean()
        norm = float(np.linalg.norm(values))
        return float(values @ target) / norm if norm > 0 else 0.0


def _power(values: NDArray[np.float64]) -> NDArray[np.float64]:
    powered: NDArray[np.float64] = np.sign(values) * np.abs(values) ** _POWER
    return powered
