"""The logistic loss of all pairs of rows with different target values, without listing the pairs.

A pair has the loss log(1 + exp(s_lower - s_higher)) of the sums of its two rows, and counts by the difference of their
target values. On the range of the sums that loss is a polynomial of both, up to rounding: a product of Chebyshev series
[1]_. So the loss of all pairs of two values needs only the mean Chebyshev polynomials of the rows of each value: time
and memory grow with the rows instead of the pairs.

.. [1] Trefethen, "Approximation Theory and Approximation Practice", SIAM 2013, chapter 8: the error falls with the
   degree as a power of the largest ellipse around the range in which the function is analytic; here the loss is not at
   differences of i pi.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.polynomial import chebyshev

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

_PRECISION = 1e-14
# the degree of ranges beyond 100 on each side, which only a step that is too long has: there the loss is not exact
_MAX_DEGREE = 1_000
# rows at a time, so that their polynomials stay in a processor's cache
_ROWS_AT_A_TIME = 8_192


class PairLoss:
    """The mean loss of all pairs with different values, times the number of rows.

    Parameters
    ----------
    values
        Target values in [0, 1], shape (rows,).

    Attributes
    ----------
    pairs : int
        Number of pairs.
    """

    def __init__(self, values: NDArray[np.float32]) -> None:
        levels, level_of_row, counts = np.unique(values, return_inverse=True, return_counts=True)
        self._order = np.argsort(level_of_row, kind="stable")
        ends = np.cumsum(counts)
        self._parts = [slice(end - count, end) for end, count in zip(ends.tolist(), counts.tolist(), strict=True)]
        weights = np.tril(np.subtract.outer(levels, levels).astype(np.float64))
        total = float(counts @ weights @ counts)
        # NaN, without a warning, where there is no pair
        self._weights = weights * (len(values) / total if total else math.nan)
        self.pairs = int((len(values) ** 2 - int(counts @ counts)) // 2)

    def __call__(self, sums: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Compute the loss of sums, in nats, and its derivative by each; both shapes (rows,).

        It is NaN when all values are the same.
        """
        lowest, highest = float(np.min(sums)), float(np.max(sums))
        centre, radius = (lowest + highest) / 2, max(1.0, (highest - lowest) / 2)
        positions = (sums[self._order] - centre) / radius
        degree = _degree(radius)
        kernel = _kernel(radius, degree)
        moments = np.zeros((len(self._parts), degree + 1))
        for level, part in enumerate(self._parts):
            for _, block in _blocks(positions, part):
                moments[level] += chebyshev.chebvander(block, degree).sum(axis=0)
        below = self._weights @ moments
        loss = float(((moments @ kernel) * below).sum())
        gradients = chebyshev.chebder(below @ kernel.T + self._weights.T @ moments @ kernel, axis=1) / radius
        slopes = np.empty(len(sums))
        for level, part in enumerate(self._parts):
            for rows, block in _blocks(positions, part):
                slopes[self._order[rows]] = chebyshev.chebvander(block, degree - 1) @ gradients[level]
        return loss, slopes


def _degree(radius: float) -> int:
    """Return the degree at which the series of the loss is exact for sums in [-radius, radius]."""
    height = math.pi / radius
    return min(_MAX_DEGREE, math.ceil(-math.log(_PRECISION) / math.log(height + math.hypot(1, height))))


def _kernel(radius: float, degree: int) -> NDArray[np.float64]:
    """Return the coefficients of a pair's loss, by the higher and the lower row; shape (degree + 1, degree + 1)."""

    def losses(nodes: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.logaddexp(0, radius * (nodes - nodes[:, np.newaxis]))

    # functions with several values, which its type does not have
    interpolate: Any = chebyshev.chebinterpolate
    of_higher = interpolate(losses, degree)
    coefficients: NDArray[np.float64] = interpolate(lambda _nodes: of_higher.T, degree).T
    return coefficients


def _blocks(positions: NDArray[np.float64], part: slice) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    for start in range(part.start, part.stop, _ROWS_AT_A_TIME):
        rows = slice(start, min(start + _ROWS_AT_A_TIME, part.stop))
        yield rows, positions[rows]
