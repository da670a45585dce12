"""XGBoost's models: plans of their fits, and missing values in their histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.images.conftest import (
    Runner,
    assert_succeeded,
    change_columns,
    five_bins,
    many_five_bins,
    run_program,
    write_tables,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
ALL_ROWS = 6_860_000


def test_plans_tournament_size_fit_the_memory(runner: Runner) -> None:
    plans = run_program(runner, "plans.py")
    for name, (rows, features, memory) in plans.items():
        operation, limit, available, _ = name.split()
        assert memory <= int(limit), name
        assert rows >= 50_000, name
        if operation == "xgboost":
            assert rows == ALL_ROWS, name
            # 14 MiB a feature
            fitting = {2_048: 10, 6_144: 300, 16_384: 780}[int(limit)]
            assert min(int(available), fitting) <= features <= int(available), name
        elif int(limit) == 6_144:
            assert features == min(int(available), 50), name
            assert rows > 500_000, name


def test_xgboost_little_memory_selects_features(runner: Runner) -> None:
    write_tables(runner.directory, many_five_bins)
    environment: dict[str, Any] = {"MAX_TREES": "30", "COLSAMPLE": "0.5"}
    finished = assert_succeeded(runner.run("xgboost", MEMORY_LIMIT="303", **environment))
    selected = finished.report["features"]
    assert 250 < selected < 500
    assert any(f"learning from {selected:,} of 780 features" in note for note in finished.report["notes"])
    # the target depends on four of them
    assert finished.report["validation"]["correlation"] > 0.15
    assert assert_succeeded(runner.run("xgboost", **environment)).report["features"] == 780


def below_all(matrix: NDArray[np.int8]) -> NDArray[np.int8]:
    """Set a value of the first feature in ten to -1, below all others."""
    changed = matrix.copy()
    changed[::10, 0] = -1
    return changed


@pytest.mark.parametrize("kind", [pa.int8(), pa.float32()], ids=["int8", "float32"])
def test_xgboost_missing_value_is_below_all_others(runner: Runner, kind: pa.DataType) -> None:
    write_tables(runner.directory, five_bins, modify=below_all)
    expected = assert_succeeded(runner.run("xgboost", MAX_TREES="30"))
    assert "(int8)" in expected.lines[0]
    for name in ("training", "tournament"):
        path = runner.directory / f"{name}.parquet"
        values = pq.read_table(path)["feature1"].to_numpy()
        change_columns(path, feature1=pa.array(values, kind, mask=values == -1))
    finished = assert_succeeded(runner.run("xgboost", MAX_TREES="30"))
    assert "(float32)" in finished.lines[0]
    assert finished.report["chosen"]["max_bin"] == 8
    assert finished.predictions_bytes == expected.predictions_bytes
