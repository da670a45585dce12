"""Imputation: missing feature values become the median of the training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.feature_matrix import FeatureMatrix

# values at a time, as float32 a small part of any memory limit
_VALUES_AT_A_TIME = 1 << 23


class Medians:
    """The medians of a matrix's columns; 0 for a column without any value.

    Parameters
    ----------
    matrix
        The training rows, shape (rows, columns), NaN where a value is missing: numpy's, or a `FeatureMatrix`.

    Attributes
    ----------
    values : numpy.ndarray of float32, shape (columns,)
    """

    def __init__(self, matrix: NDArray[Any] | FeatureMatrix) -> None:
        columns = matrix.shape[1]
        self.values = np.zeros(columns, dtype=np.float32)
        # a few columns at a time: the median of all of them would copy the matrix
        at_a_time = max(1, _VALUES_AT_A_TIME // max(len(matrix), 1))
        for start in range(0, columns, at_a_time):
            # contiguous by column, which makes the median three times as fast
            block = np.ascontiguousarray(matrix[:, start : start + at_a_time].T, dtype=np.float32)
            for column, values in enumerate(block, start):
                known = values[~np.isnan(values)]
                if len(known):
                    self.values[column] = np.median(known)

    @classmethod
    def from_values(cls, values: NDArray[np.float32]) -> Medians:
        """Create the medians of a saved model from its `values`."""
        medians = cls.__new__(cls)
        medians.values = values
        return medians

    def fill(self, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
        """Replace the missing values of a matrix of shape (rows, columns) in place, and return it."""
        at_a_time = max(1, _VALUES_AT_A_TIME // max(matrix.shape[1], 1))
        for start in range(0, len(matrix), at_a_time):
            block = matrix[start : start + at_a_time]
            np.copyto(block, self.values, where=np.isnan(block))
        return matrix
