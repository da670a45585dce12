"""The plan of a fit: the sizes that fit a limit, and the selection of features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numerai_contract.exits import BadParameterError
from numerai_contract.feature_selection import most_correlated
from numerai_contract.model_directory import ModelDirectory
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Plan, Sizes, largest, within_memory
from numerai_contract.tables import MISSING, JoinedTable, Table
from numerai_contract.task import Task

Columns = dict[str, Any]
Writer = Callable[..., Path]


@pytest.mark.parametrize(
    ("at_most", "at_least", "limit", "expected"),
    [(100, 10, None, 100), (100, 10, 1_000.0, 100), (100, 10, 420.0, 42), (100, 10, 5.0, 10), (8, 10, 5.0, 8)],
    ids=["no limit", "all fit", "some fit", "none fit", "fewer than the least"],
)
def test_largest_need_of_ten_each(at_most: int, at_least: int, limit: float | None, expected: int) -> None:
    assert largest(at_most, at_least, lambda count: 10.0 * count, limit) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, Plan(rows=200_000, features=80, memory=1_600.0)),
        ({"MEMORY_LIMIT": "800"}, Plan(rows=100_000, features=80, memory=800.0)),
        ({"MEMORY_LIMIT": "200"}, Plan(rows=50_000, features=40, memory=200.0)),
        ({"MEMORY_LIMIT": "800", "ROW_LIMIT": "160000"}, Plan(rows=160_000, features=50, memory=800.0)),
        ({"MEMORY_LIMIT": "64", "ROW_LIMIT": "100000"}, Plan(rows=100_000, features=10, memory=100.0)),
    ],
    ids=["no limit", "rows", "features", "a row limit of the user", "nothing fits"],
)
def test_within_memory_takes_fewer_rows_then_features(environment: dict[str, str], expected: Plan) -> None:
    def memory(rows: int, features: int) -> float:
        return rows * features / 10_000

    assert within_memory(Parameters(environment), 200_000, 80, memory) == expected


def informative_columns(columns: Columns) -> Columns:
    """feature2 follows the target, feature3 opposes it with a missing value, feature1 is constant."""
    columns["feature1"] = np.full(12, 4, dtype=np.float32)
    columns["feature2"] = columns["target"].copy()
    columns["feature2"][:2] = 0.5
    columns["feature3"] = -columns["target"]
    columns["feature3"][5] = np.nan
    return columns


def test_most_correlated_missing_values_and_a_constant(write: Writer, columns: Columns) -> None:
    table = Table(write(informative_columns(columns)))
    rows = np.ones(12, dtype=bool)
    assert most_correlated(table, rows, 1) == ["feature3"]
    assert most_correlated(table, rows, 2) == ["feature2", "feature3"]
    assert most_correlated(table, rows, 3) == ["feature1", "feature2", "feature3"]


def test_most_correlated_uses_the_marked_rows_only(write: Writer, columns: Columns) -> None:
    columns = informative_columns(columns)
    columns["feature3"][:6] = np.arange(6)
    columns["feature2"][6:] = [0, 1, 1, 0, 0, 1]
    table = Table(write(columns))
    assert most_correlated(table, np.arange(12) >= 6, 1) == ["feature3"]
    assert most_correlated(table, np.arange(12) < 6, 1) == ["feature2"]


@pytest.fixture
def task(write: Writer, columns: Columns) -> Task:
    write(informative_columns(columns))
    columns["id"] = [f"v{row}" for row in range(12)]
    paths = {name.upper(): str(write(columns, f"{name}.parquet")) for name in ("validation", "testing")}
    training = str(Path(paths["TESTING"]).with_name("training.parquet"))
    task = Task(Parameters({"OPERATION": "x", "TRAINING": training, "MEMORY_LIMIT": "1000", "SEED": "1", **paths}))
    task.model = ModelDirectory(Path(training).with_name("model"))
    return task


def test_task_follow_selects_features_of_every_table(task: Task) -> None:
    assert task.sizes == Sizes(12, 12, 3, 4)
    assert task.testing.feature_names == ("feature1", "feature2", "feature3")
    task.follow(Plan(rows=24, features=2, memory=900))
    final = task.for_final_fit()
    final.follow(Plan(rows=24, features=1, memory=900))
    for table in (task.training, task.validation, task.testing, task.fit_table, final.training):
        assert table.feature_names == ("feature2", "feature3")
        assert table.features().shape[1] == 2
    np.testing.assert_array_equal(task.training.features()[:, 0], final.training.features()[:12, 0])


def test_task_follow_too_much_memory_is_refused(task: Task) -> None:
    with pytest.raises(BadParameterError, match=r"MEMORY_LIMIT is 1,000 MiB, and 24 rows of 3 features"):
        task.follow(Plan(rows=24, features=3, memory=1_001))


def test_int8_features_mark_missing_values(write: Writer, columns: Columns) -> None:
    columns["feature1"] = np.arange(12, dtype=np.int8)
    columns["feature2"] = np.arange(12, dtype=np.float32)
    columns["feature2"][3] = np.nan
    table = Table(write(columns), ["feature1", "feature2"])
    assert table.holds_int8
    assert table.feature_dtype == np.float32
    expected = np.column_stack([np.arange(12), np.arange(12)])
    expected[3, 1] = MISSING
    np.testing.assert_array_equal(table.int8_features(), expected)
    joined = JoinedTable(table, table)
    assert joined.holds_int8
    assert joined.int8_features(np.arange(24) == 15).tolist() == [[3, MISSING]]


@pytest.mark.parametrize("value", [0.5, 128.0, -128.0, 1e30])
def test_holds_int8_other_numbers_are_refused(write: Writer, columns: Columns, value: float) -> None:
    for name in ("feature1", "feature2", "feature3"):
        columns[name] = np.zeros(12, dtype=np.float32)
    columns["feature2"][7] = value
    table = Table(write(columns))
    assert not table.holds_int8
    assert table.with_features(["feature1"]).holds_int8
