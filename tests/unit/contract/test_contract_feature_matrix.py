"""Features in memory: int8 features and coordinates, read as one float32 matrix."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numerai_contract.feature_matrix import FeatureMatrix
from numerai_contract.imputation import Medians
from numerai_contract.tables import MISSING, Table

INT8 = np.array([[0, 1], [2, MISSING], [4, 3], [MISSING, 0]], dtype=np.int8)
FLOAT32 = np.where(INT8 == MISSING, np.nan, INT8).astype(np.float32)
COORDINATES = np.array([[0.5, MISSING], [-1, 2], [3, 4], [5, 6]], dtype=np.float32)
WHOLE = np.hstack([FLOAT32, COORDINATES])

INDICES = [
    slice(None),
    slice(1, 3),
    np.array([3, 1, 1]),
    (slice(None), slice(0, 1)),
    (slice(1, 4), slice(1, 3)),
    (slice(None), slice(2, 9)),
]


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("features", [INT8, FLOAT32], ids=["int8", "float32"])
def test_feature_matrix_block_equals_that_of_a_float32_matrix(features: Any, index: Any) -> None:
    matrix = FeatureMatrix(features, COORDINATES)
    assert (len(matrix), matrix.shape) == (4, (4, 4))
    block = matrix[index]
    assert block.dtype == np.float32
    np.testing.assert_array_equal(block, WHOLE[index])


@pytest.mark.parametrize("index", INDICES, ids=str)
@pytest.mark.parametrize("features", [INT8, FLOAT32, INT8[1:], FLOAT32[1:]], ids=["int8", "float32", "halves", "whole"])
def test_feature_matrix_impute_puts_in_the_medians(features: Any, index: Any) -> None:
    whole = WHOLE[-len(features) :]
    matrix = FeatureMatrix(features.copy(), COORDINATES[-len(features) :])
    medians = Medians(matrix)
    assert medians.values.tolist() == Medians(whole).values.tolist()
    selected = [0, 2, 1] if isinstance(index, np.ndarray) else index
    np.testing.assert_array_equal(matrix.impute(medians)[selected], medians.fill(whole.copy())[selected])


def test_feature_matrix_read_of_whole_numbers_is_int8(write: Callable[..., Path], columns: dict[str, Any]) -> None:
    rows = np.arange(12) % 2 == 0
    fractions = Table(write(columns))
    assert not fractions.holds_int8
    np.testing.assert_array_equal(FeatureMatrix.read(fractions, rows)[:], fractions.features(rows))
    whole = {name: np.array([*range(11), np.nan], np.float32) for name in columns if name.startswith("feature")}
    table = Table(write(columns | whole, "whole.parquet"))
    matrix = FeatureMatrix.read(table, ~rows)
    assert matrix._features.dtype == np.int8
    np.testing.assert_array_equal(matrix[:], table.features(~rows))
