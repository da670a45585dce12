"""A space in which rows are near or far: standardised columns, made a block of rows at a time and never kept whole.

Either the features themselves, or the features and their products of two (`_polynomial`). Products are taken of the
features as they are, not of standardised ones: those of standardised features are mostly noise to a distance, and a
few rows then become neighbours of nearly all (one of 7,617 in 8,000 rows of a practice season, against 534).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.linalg import eigh

from ._polynomial import Scaling, count, expand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# a block of columns in bytes: large enough for a fast matrix product, small beside any memory limit
_BLOCK_BYTES = 64 << 20
_MOST_ROWS_AT_A_TIME = 8_192


def impute(matrix: NDArray[np.float32]) -> None:
    """Put the median of its column in the place of each missing value; 0 where a column has none."""
    for column in matrix.T:
        missing = np.isnan(column)
        if missing.any():
            column[missing] = 0 if missing.all() else np.median(column[~missing])


class Space(NamedTuple):
    """Standardised columns of a matrix.

    Attributes
    ----------
    matrix : numpy.ndarray of float32, shape (rows, features)
        Without missing values.
    polynomial : bool
        Whether the columns are the features and their products of two, or the features alone.
    means, scales : numpy.ndarray of float32, shape (dimensions,)
        A column becomes (column - mean) * scale; one that never changes has the scale 0.
    """

    matrix: NDArray[np.float32]
    polynomial: bool
    means: NDArray[np.float32]
    scales: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: NDArray[np.float32], *, polynomial: bool) -> Space:
        """Measure the columns of a matrix, shape (rows, features), without missing values."""
        if polynomial:
            scaling = Scaling.of(matrix)
            return cls(matrix, True, scaling.means.astype(np.float32), scaling.scales.astype(np.float32))
        means = matrix.mean(axis=0, dtype=np.float64)
        deviations = matrix.std(axis=0, dtype=np.float64)
        varies = deviations > 1e-6 * np.maximum(1, np.abs(means))
        scales = np.divide(1, deviations, out=np.zeros_like(deviations), where=varies)
        return cls(matrix, False, means.astype(np.float32), scales.astype(np.float32))

    @property
    def dimensions(self) -> int:
        """How many columns there are."""
        return len(self.means)

    def blocks(self, rows: NDArray[np.intp]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Make the columns of some rows, a block at a time.

        Parameters
        ----------
        rows
            Positions in the matrix, shape (rows wanted,).

        Yields
        ------
        places : slice
            Which of the rows wanted these are.
        block : numpy.ndarray of float32, shape (rows of the block, dimensions)
        """
        at_a_time = min(_MOST_ROWS_AT_A_TIME, max(64, _BLOCK_BYTES // (4 * self.dimensions)))
        for start in range(0, len(rows), at_a_time):
            places = slice(start, min(start + at_a_time, len(rows)))
            block = self.matrix[rows[places]]
            if self.polynomial:
                block = expand(block)
            block -= self.means
            block *= self.scales
            yield places, block

    def principal_components(self, rows: NDArray[np.intp], components: int) -> NDArray[np.float64]:
        """Project rows on the directions in which they vary most.

        Returns
        -------
        numpy.ndarray of float64, shape (rows wanted, components)
            0 in components beyond the number of columns.
        """
        covariance = np.zeros((self.dimensions, self.dimensions))
        for _, block in self.blocks(rows):
            covariance += block.T @ block
        found = min(components, self.dimensions)
        last = self.dimensions - 1
        _, vectors = eigh(covariance / len(rows), subset_by_index=(last - found + 1, last))
        vectors = vectors[:, ::-1]
        # an eigenvector's sign is arbitrary: fix it
        vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(found)] < 0, -1, 1)
        projected = np.zeros((len(rows), components))
        for places, block in self.blocks(rows):
            projected[places, :found] = block @ vectors
        return projected


def most_features(rows: int, *, at_most: int, mebibytes: float) -> int:
    """Find how many features' polynomials of so many rows fit into so much memory; from 1 to `at_most`."""
    terms = mebibytes * (1 << 20) / (4 * rows)
    return max([features for features in range(1, at_most + 1) if count(features) <= terms], default=1)
