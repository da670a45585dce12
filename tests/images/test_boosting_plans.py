"""Boosted trees: plans of their fits, missing values in their histograms, and early stopping."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from tests.images.conftest import (
    THREE_TABLES,
    TOURNAMENT_ROWS,
    Runner,
    assert_succeeded,
    change_columns,
    five_bins,
    graded,
    many_five_bins,
    plan_case,
    run_plans,
    write_tables,
)

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
TREES = ("xgboost", "lightgbm")


def test_plans_tournament_size_fit_the_memory(runner: Runner) -> None:
    cases = [plan_case(model, limit) for model in TREES for limit in (2_048, 6_144, 16_384)]
    cases += [plan_case("gradient_boosted_trees", limit) for limit in (2_048, 6_144)]
    for plan in run_plans(runner, cases):
        assert plan.memory <= plan.limit, plan
        assert plan.rows >= 50_000, plan
        if plan.operation in TREES:
            assert plan.rows == sum(TOURNAMENT_ROWS), plan
            # 14 MiB a feature; XGBoost's trees take the time of all features
            fitting = {2_048: 10, 6_144: 300, 16_384: 780 if plan.operation == "lightgbm" else 360}[plan.limit]
            assert min(plan.of_features, fitting) <= plan.features <= plan.of_features, plan
        elif plan.limit == 6_144:
            assert plan.features == min(plan.of_features, 50), plan
            assert plan.rows > 200_000, plan


@pytest.mark.parametrize("model", TREES)
def test_trees_little_memory_selects_features(runner: Runner, model: str) -> None:
    write_tables(runner.directory, many_five_bins)
    environment: dict[str, Any] = {"MAX_TREES": "30", "COLSAMPLE": "0.5"}
    finished = assert_succeeded(runner.run(model, MEMORY_LIMIT="303", **environment))
    selected = finished.report["features"]
    assert 250 < selected < 500
    assert any(f"learning from {selected:,} of 780 features" in note for note in finished.report["notes"])
    # the target depends on four of them
    assert finished.report["validation"]["correlation"] > 0.15
    assert assert_succeeded(runner.run(model, **environment)).report["features"] == 780


def below_all(matrix: NDArray[np.int8]) -> NDArray[np.int8]:
    """Set a value of the first feature in ten to -1, below all others."""
    changed = matrix.copy()
    changed[::10, 0] = -1
    return changed


@pytest.mark.parametrize("model", TREES)
@pytest.mark.parametrize("kind", [pa.int8(), pa.float32()], ids=["int8", "float32"])
def test_trees_missing_value_is_below_all_others(runner: Runner, kind: pa.DataType, model: str) -> None:
    write_tables(runner.directory, five_bins, modify=below_all)
    expected = assert_succeeded(runner.run(model, MAX_TREES="30"))
    assert "(int8)" in expected.lines[0]
    for name in ("training", "tournament"):
        path = runner.directory / f"{name}.parquet"
        values = pq.read_table(path)["feature1"].to_numpy()
        change_columns(path, feature1=pa.array(values, kind, mask=values == -1))
    finished = assert_succeeded(runner.run(model, MAX_TREES="30"))
    assert "(float32)" in finished.lines[0]
    assert finished.report["chosen"]["max_bin"] == 8
    assert finished.predictions_bytes == expected.predictions_bytes


@pytest.mark.parametrize("model", TREES)
def test_trees_are_a_fixed_number_on_all_rows(runner: Runner, model: str) -> None:
    write_tables(runner.directory, five_bins, graded)
    finished = runner.run(model, {}, **THREE_TABLES)
    assert finished.code == 0, finished.lines
    report = finished.report
    assert report["rows"]["training"] == 3_000
    assert report["rows"]["held_out"] == 0
    # of 2,000 at 2.75 million rows; the final fit has 3,800
    assert (
        report["chosen"]["trees"] == report["final"]["chosen"]["trees"] == round(2_000 * (3_800 / 2_750_000) ** (1 / 3))
    )
    assert report["final"]["training_rows"] == 3_800
    settings = {"preset": "small", "learning_rate": 0.01, "max_depth": 5, "max_leaves": 31, "colsample": 0.1}
    assert report["chosen"].items() >= settings.items()


def test_lightgbm_draws_the_features_of_trees_evenly(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    finished = runner.run("lightgbm", {}, MAX_TREES="400", **THREE_TABLES)
    assert finished.code == 0, finished.lines
    saved = (runner.directory / "model" / "saved" / "trees.txt").read_text().splitlines()
    used = [set(line.partition("=")[2].split()) for line in saved if line.startswith("split_feature=")]
    assert len(used) == 400
    counts = np.array([sum(str(feature) in features for features in used) for feature in range(42)])
    # 38 on average; with the library's own draws 18 to 76
    assert counts.std() < 10
    assert counts.max() < 65


@pytest.mark.parametrize("model", TREES)
def test_trees_stop_early_by_corr_and_are_grown_again_on_all_rows(runner: Runner, model: str) -> None:
    write_tables(runner.directory, five_bins, graded)
    stopping = {"EARLY_STOPPING": "30", "LEARNING_RATE": "0.2", "COLSAMPLE": "1", "MAX_TREES": "500"}
    report = assert_succeeded(runner.run(model, {}, **stopping)).report
    chosen = report["chosen"]
    assert chosen["trees"] == max(20, chosen["best_trees"]) < 200
    assert 0.05 < chosen["best_held_out_corr"] < 0.95
    assert chosen["embargo_weeks"] == 6
    assert report["rows"] == {"training": 3_000, "held_out": 12 * 50, "testing": 1_000}
    assert any(note.startswith("best held-out corr 0.") for note in report["notes"])
