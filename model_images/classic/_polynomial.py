"""The polynomial of degree 2 of a row: its features, their squares and their products of two, standardised.

A table of them is many times the size of the features' (50 features have 1,325 terms), so it is never in memory at
once: blocks of rows are expanded when they are needed, in float32, and means and variances are measured in one pass
over such blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from numerai_contract.feature_matrix import FeatureMatrix

# a block of terms, in bytes: large enough for a fast matrix product, small beside any memory limit
_BLOCK_BYTES = 16 << 20


def count(features: int) -> int:
    """Return the number of terms of n features: n + n (n + 1) / 2."""
    return features + features * (features + 1) // 2


def expand(block: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the terms of rows.

    Parameters
    ----------
    block
        Shape (rows, features), without missing values.

    Returns
    -------
    numpy.ndarray of float32, shape (rows, `count` (features))
        In the order of scikit-learn's ``PolynomialFeatures(2, include_bias=False)``: x1, x2, …, x1 x1, x1 x2, …
    """
    rows, features = block.shape
    terms = np.empty((rows, count(features)), dtype=np.float32)
    terms[:, :features] = block
    start = features
    for feature in range(features):
        width = features - feature
        np.multiply(block[:, feature : feature + 1], block[:, feature:], out=terms[:, start : start + width])
        start += width
    return terms


def blocks(matrix: NDArray[np.float32] | FeatureMatrix) -> Iterator[tuple[slice, NDArray[np.float32]]]:
    """Expand a matrix a block of rows at a time.

    Yields
    ------
    rows : slice
        The rows of the matrix in this block.
    terms : numpy.ndarray of float32, shape (rows of the block, terms)
    """
    at_a_time = max(64, _BLOCK_BYTES // (4 * count(matrix.shape[1])))
    for start in range(0, len(matrix), at_a_time):
        rows = slice(start, start + at_a_time)
        yield rows, expand(matrix[rows])


class Scaling(NamedTuple):
    """Standardisation of terms to mean 0 and variance 1, like scikit-learn's StandardScaler.

    Attributes
    ----------
    means, scales : numpy.ndarray of float64, shape (terms,)
        A term becomes (term - mean) * scale; a constant term has the scale 0.
    """

    means: NDArray[np.float64]
    scales: NDArray[np.float64]

    @classmethod
    def of(cls, matrix: NDArray[np.float32] | FeatureMatrix) -> Scaling:
        """Measure the terms of a matrix, shape (rows, features), without missing values."""
        terms = count(matrix.shape[1])
        # relative to an estimate, since a mean of squares less the square of a mean loses digits when the mean is large
        guess = expand(matrix[: 1 << 10]).mean(axis=0, dtype=np.float64)
        sums, squares = np.zeros(terms), np.zeros(terms)
        for _, block in blocks(matrix):
            centred = block - guess.astype(np.float32)
            sums += centred.sum(axis=0, dtype=np.float64)
            squares += np.einsum("rt,rt->t", centred, centred, dtype=np.float64)
        shift = sums / len(matrix)
        variances = squares / len(matrix) - shift**2
        varies = variances > 1e-12 * np.maximum(1, guess**2)
        scales = np.zeros(terms)
        scales[varies] = 1 / np.sqrt(variances[varies])
        return cls(guess.astype(np.float32) + shift, scales)

    def apply(self, block: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise terms in place and return them; shape (rows, terms)."""
        block -= self.means.astype(np.float32)
        block *= self.scales.astype(np.float32)
        return block
