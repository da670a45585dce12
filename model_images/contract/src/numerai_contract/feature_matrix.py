"""The features of a fit's rows in memory, in as few bytes as possible."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract.tables import MISSING

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.imputation import Medians
    from numerai_contract.tables import TableView

_ROWS_AT_A_TIME = 65_536


class FeatureMatrix:
    """Features of rows, int8 where all are whole numbers, followed by coordinates in embeddings.

    An index gives a block as a float32 matrix would: of rows (``matrix[10:20]``, ``matrix[[3, 1]]``) or of rows and a
    range of columns (``matrix[:, 5:7]``). A block is float32, with NaN where a value is missing; it may be a view.

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
        self._features: NDArray[Any] = features
        self._coordinates = np.empty((len(features), 0), dtype=np.float32) if coordinates is None else coordinates
        self._fill: NDArray[np.float32] | None = None
        self._is_complete = False
        self.shape = (len(features), features.shape[1] + self._coordinates.shape[1])

    @classmethod
    def read(
        cls, table: TableView, rows: NDArray[np.bool_], coordinates: NDArray[np.float32] | None = None
    ) -> FeatureMatrix:
        """Read the features of the marked rows of a table; `coordinates` are those of the marked rows."""
        if table.holds_int8:
            return cls(table.int8_features(rows), coordinates)
        names = table.feature_names
        width = 0 if coordinates is None else coordinates.shape[1]
        columns = np.empty((np.count_nonzero(rows), len(names) + width), dtype=np.float32)
        if coordinates is not None:
            columns[:, len(names) :] = coordinates
        filled = 0
        for positions, block in table.batches(rows):
            columns[filled : filled + len(positions), : len(names)] = block
            filled += len(positions)
        return cls(columns)

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
        if features.dtype == np.float32 and not coordinates.shape[1]:
            return features
        # an array of rows may have several dimensions, as pairs have
        block = np.empty((*features.shape[:-1], stop - start), dtype=np.float32)
        known = block[..., : features.shape[-1]]
        known[...] = features
        block[..., features.shape[-1] :] = coordinates[rows]
        if features.dtype == np.int8 and not self._is_complete:
            fill = np.float32(np.nan) if self._fill is None else self._fill[start : start + features.shape[-1]]
            np.copyto(known, fill, where=features == MISSING)
        return block

    def impute(self, medians: Medians) -> FeatureMatrix:
        """Replace the missing values by medians, as far as possible in place, and return the matrix."""
        features = self._features
        fill = medians.values[: features.shape[1]]
        if features.dtype == np.int8 and (fill % 1).any():
            # halves, which are put into the blocks
            self._fill = fill
            return self
        for start in range(0, len(features), _ROWS_AT_A_TIME):
            block = features[start : start + _ROWS_AT_A_TIME]
            missing = block == MISSING if features.dtype == np.int8 else np.isnan(block)
            np.copyto(block, fill.astype(features.dtype), where=missing)
        self._is_complete = True
        return self
