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

from ._polynomial import Scaling, expand

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

# a block of columns in bytes: large enough for a fast matrix product, small beside any memory limit
_BLOCK_BYTES = 64 << 20
_MAX_ROWS_AT_A_TIME = 8_192
# features whose variances are computed at a time
_FEATURES_AT_A_TIME = 64


class Space(NamedTuple):
    """The standardised columns of rows.

    Attributes
    ----------
    polynomial : bool
        Whether the columns are the features and their products of two, or the features alone.
    features : numpy.ndarray of int, shape (features used,)
        Indices of the features.
    means, scales : numpy.ndarray of float32, shape (dimensions,)
        A column becomes (column - mean) * scale; a constant column has the scale 0.
    """

    polynomial: bool
    features: NDArray[np.intp]
    means: NDArray[np.float32]
    scales: NDArray[np.float32]

    @classmethod
    def of(cls, matrix: NDArray[Any], features: NDArray[np.intp], *, polynomial: bool) -> Space:
        """Measure the columns of a matrix of float32 or int8, shape (rows, features), without missing values."""
        if polynomial:
            scaling = Scaling.of(matrix[:, features].astype(np.float32, copy=False))
            return cls(True, features, scaling.means.astype(np.float32), scaling.scales.astype(np.float32))
        # some at a time: NumPy's variance copies its matrix in 64 bits
        parts = np.array_split(features, range(_FEATURES_AT_A_TIME, len(features), _FEATURES_AT_A_TIME))
        means = np.concatenate([matrix[:, part].mean(axis=0, dtype=np.float64) for part in parts])
        deviations = np.concatenate([matrix[:, part].std(axis=0, dtype=np.float64) for part in parts])
        varies = deviations > 1e-6 * np.maximum(1, np.abs(means))
        scales = np.divide(1, deviations, out=np.zeros_like(deviations), where=varies)
        return cls(False, features, means.astype(np.float32), scales.astype(np.float32))

    @property
    def dimensions(self) -> int:
        """Number of columns."""
        return len(self.means)

    def columns(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Compute the columns of rows of float32 or int8, shape (rows, features); shape (rows, dimensions)."""
        # a copy, since features are selected by their indices
        columns = block[:, self.features].astype(np.float32, copy=False)
        if self.polynomial:
            columns = expand(columns)
        columns -= self.means
        columns *= self.scales
        return columns

    def blocks(self, matrix: NDArray[Any]) -> Iterator[tuple[slice, NDArray[np.float32]]]:
        """Compute the columns of a matrix, a block of rows at a time.

        Parameters
        ----------
        matrix
            Shape (rows, features), without missing values.

        Yields
        ------
        part : slice
            The rows of this block.
        block : numpy.ndarray of float32, shape (rows of the block, dimensions)
        """
        at_a_time = min(_MAX_ROWS_AT_A_TIME, max(64, _BLOCK_BYTES // (4 * self.dimensions)))
        for start in range(0, len(matrix), at_a_time):
            part = slice(start, min(start + at_a_time, len(matrix)))
            yield part, self.columns(matrix[part])

    def covariance(self, matrix: NDArray[Any]) -> NDArray[np.float64]:
        """Compute the covariance of the columns of a matrix's rows; shape (dimensions, dimensions)."""
        covariance = np.zeros((self.dimensions, self.dimensions))
        for _, block in self.blocks(matrix):
            covariance += block.T @ block
        return covariance / len(matrix)

    def project(self, matrix: NDArray[Any], directions: NDArray[Any]) -> NDArray[Any]:
        """Project rows onto directions, shape (dimensions, directions); shape (rows, directions)."""
        projected = np.empty((len(matrix), directions.shape[1]), dtype=directions.dtype)
        for part, block in self.blocks(matrix):
            projected[part] = block @ directions
        return projected


def principal_directions(covariance: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Compute the directions of the largest variance, the largest first.

    Returns
    -------
    numpy.ndarray of float64, shape (dimensions, count)
        0 in directions beyond the number of dimensions.
    """
    dimensions = len(covariance)
    found = min(count, dimensions)
    _, vectors = eigh(covariance, subset_by_index=(dimensions - found, dimensions - 1))
    vectors = vectors[:, ::-1]
    # an eigenvector's sign is arbitrary: fix it
    vectors *= np.where(vectors[np.abs(vectors).argmax(axis=0), np.arange(found)] < 0, -1, 1)
    return np.pad(vectors, ((0, 0), (0, count - found)))
