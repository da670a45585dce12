"""The space in which distances of rows are measured: standardised columns, computed a block of rows at a time.

The columns are either the features, or the features and their products of two (`_polynomial`). Products are computed
from the original features, not from standardised ones: with products of standardised features distances are mostly
noise, and a few rows become neighbours of nearly all (one of 7,617 in 8,000 rows of the simulated tournament, against
534).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import eigh

from ._polynomial import Scaling, count, expand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# a block of columns in bytes: large enough for a fast matrix product, small beside any memory limit
_BLOCK_BYTES = 64 << 20
_MAX_ROWS_AT_A_TIME = 8_192


class Space(NamedTuple):
    """Standardised columns of a matrix.

    Attributes
    ----------
    matrix : numpy.ndarray of float32 or int8, shape (rows, features)
        Without missing values.
    polynomial : bool
        Whether the columns are the features and their products of two, or the features alone.
    means, scales : numpy.ndarray of float32, shape (dimensions,)
        A column becomes (column - mean) * scale; a constant column has the scale 0.
    """

    matrix: NDArray[Any]
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
        """Number of columns."""
        return len(self.means)

    def blocks(self, rows: NDArray[np.intp]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Compute the columns of some rows, a block at a time.

        Parameters
        ----------
        rows
            Indices in the matrix, shape (rows selected,).

        Yields
        ------
        part : slice
            The selected rows in this block.
        block : numpy.ndarray of float32, shape (rows of the block, dimensions)
        """
        at_a_time = min(_MAX_ROWS_AT_A_TIME, max(64, _BLOCK_BYTES // (4 * self.dimensions)))
        for start in range(0, len(rows), at_a_time):
            part = slice(start, min(start + at_a_time, len(rows)))
            # a copy, since the rows are selected by their indices
            block = self.matrix[rows[part]].astype(np.float32, copy=False)
            if self.polynomial:
                block = expand(block)
            block -= self.means
            block *= self.scales
            yield part, block

    def principal_components(self, rows: NDArray[np.intp], components: int) -> NDArray[np.float64]:
        """Project rows onto the directions of their largest variance.

        Returns
        -------
        numpy.ndarray of float64, shape (rows selected, components)
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
        for part, block in self.blocks(rows):
            projected[part, :found] = block @ vectors
        return projected


def max_features(rows: int, *, at_most: int, mebibytes: float) -> int:
    """Compute the number of features whose polynomials of all rows fit into the memory; from 1 to `at_most`."""
    terms = mebibytes * (1 << 20) / (4 * rows)
    return max([features for features in range(1, at_most + 1) if count(features) <= terms], default=1)
