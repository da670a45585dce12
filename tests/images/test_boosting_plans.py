"""XGBoost's models: plans of their fits, and missing values in their histograms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.images.conftest import (
    TOURNAMENT_ROWS,
    Runner,
    assert_succeeded,
    change_columns,
    five_bins,
    many_five_bins,
    plan_case,
    run_plans,
    write_tables,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"


def test_plans_tournament_size_fit_the_memory(runner: Runner) -> None:
    cases = [plan_case("xgboost", limit) for limit in (2_048, 6_144, 16_384)]
    cases += [plan_case("gradient_boosted_trees", limit) for limit in (2_048, 6_144)]
    for plan in run_plans(runner, cases):
        assert plan.memory <= plan.limit, plan
        assert plan.rows >= 50_000, plan
        if plan.operation == "xgboost":
            assert plan.rows == sum(TOURNAMENT_ROWS), plan
            # 14 MiB a feature
            fitting = {2_048: 10, 6_144: 300, 16_384: 780}[plan.limit]
            assert min(plan.of_features, fitting) <= plan.features <= plan.of_features, plan
        elif plan.limit == 6_144:
            assert plan.features == min(plan.of_features, 50), plan
            assert plan.rows > 500_000, plan


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
