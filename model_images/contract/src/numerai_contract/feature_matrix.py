"""The features of a fit's rows in memory, in as few bytes as possible."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract.tables import MISSING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.imputation import Medians
    from numerai_contract.tables import TableView


class FeatureMatrix:
    """Features of rows, int8 where all are whole numbers, followed by coordinates in embeddings.

    An index gives a block as a float32 matrix would: of rows (``matrix[10:20]``, ``matrix[[3, 1]]``) or of rows and a
    range of columns (``matrix[:, 5:7]``). A block is float32, with NaN where a value is missing.

    Parameters
    ----------
    features
        Shape (rows, features): int8 with `MISSING`, or float32 with NaN, where a value is missing.
    coordinates
        float32 without missing values, shape (rows, coordinates); by default none.
    """

    def __init__(
        self, features: NDArray[np.int8] | NDArray[np.float32], coordinates: NDArray[np.float32] | None = None
    ) -> None:
        self._features = features
        self._coordinates = np.empty((len(features), 0), dtype=np.float32) if coordinates is None else coordinates
        self._fill: NDArray[np.float32] | None = None
        self.shape = (len(features), features.shape[1] + self._coordinates.shape[1])

    @classmethod
    def read(
        cls, table: TableView, rows: NDArray[np.bool_], coordinates: NDArray[np.float32] | None = None
    ) -> FeatureMatrix:
        """Read the features of the marked rows of a table; `coordinates` are those of the marked rows."""
        features = table.int8_features(rows) if table.holds_int8 else table.features(rows)
        return cls(features, coordinates)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.float32]:
        rows, columns = index if isinstance(index, tuple) else (index, slice(None))
        start, stop, _ = columns.indices(self.shape[1])
        width = self._features.shape[1]
        # all columns of rows in any order: without a second slice, which makes numpy several times as slow
        features, coordinates = self._features, self._coordinates
        if (start, stop) != (0, self.shape[1]):
            features = features[:, start : min(stop, width)]
            coordinates = coordinates[:, max(start - width, 0) : max(stop - width, 0)]
        features = features[rows]
        # an array of rows may have several dimensions, as pairs have
        block = np.empty((*features.shape[:-1], stop - start), dtype=np.float32)
        known = block[..., : features.shape[-1]]
        known[...] = features
        block[..., features.shape[-1] :] = coordinates[rows]
        fill = np.float32(np.nan) if self._fill is None else self._fill[start : start + features.shape[-1]]
        if features.dtype == np.int8:
            np.copyto(known, fill, where=features == MISSING)
        elif self._fill is not None:
            np.copyto(known, fill, where=np.isnan(known))
        return block

    def imputed(self, medians: Medians) -> FeatureMatrix:
        """Return the same rows with medians in place of missing values; the values are not copied."""
        filled = copy.copy(self)
        filled._fill = medians.values
        return filled
