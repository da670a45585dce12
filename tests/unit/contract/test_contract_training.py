"""Training data: the target rule, hold-out, sampling, folds, imputation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numerai_contract import eras, targets
from numerai_contract.exits import BadDataError
from numerai_contract.tables import Table
from numerai_contract.targets import TargetKind

Columns = dict[str, Any]
Writer = Callable[..., Path]


def _table(write: Writer, columns: Columns, target: list[float]) -> Table:
    repeated = (target * 12)[:12]
    return Table(write(columns | {"target": np.array(repeated, dtype=np.float32)}))


def test_classes_rows_at_one_half_or_unknown_are_left_out(write: Writer, columns: Columns) -> None:
    table = _table(write, columns, [0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])
    labeled = targets.classes(table)
    assert labeled.rows.tolist() == [True, True, False, True, True, False] * 2
    assert labeled.labels.tolist() == [0, 0, 1, 1] * 2
    assert targets.target_kind(table.targets) is TargetKind.GRADED


def test_values_known_rows_are_used(write: Writer, columns: Columns) -> None:
    table = _table(write, columns, [0.0, 0.25, 0.5, 0.75, 1.0, float("nan")])
    labeled = targets.values(table)
    assert labeled.rows.tolist() == [True] * 5 + [False] + [True] * 5 + [False]
    assert labeled.labels.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0] * 2


def test_target_kind_ignores_unknown_targets() -> None:
    assert targets.target_kind(np.array([0, 1, np.nan], dtype=np.float32)) is TargetKind.BINARY


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ([1.0], "one class only: all 12 known values are above 0.5"),
        ([0.0, float("nan")], "one class only: all 6 known values are below 0.5"),
        ([float("nan")], "column 'target' is empty, or exactly 0.5, in all 12 rows"),
        ([0.5], "exactly 0.5"),
    ],
)
def test_classes_one_class_raises_bad_data(write: Writer, columns: Columns, target: list[float], message: str) -> None:
    with pytest.raises(BadDataError, match=message):
        targets.classes(_table(write, columns, target))


@pytest.mark.parametrize(
    ("target", "message"), [([0.25], "is 0.25 in all 12 rows where it is known"), ([float("nan")], "empty in all")]
)
def test_values_one_value_raises_bad_data(write: Writer, columns: Columns, target: list[float], message: str) -> None:
    with pytest.raises(BadDataError, match=message):
        targets.values(_table(write, columns, target))


def _eras(count: int, rows: int = 5) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.repeat(np.arange(1, count + 1, dtype=np.int32), rows)


def test_hold_out_last_many_eras_leaves_an_embargo() -> None:
    numbers = np.random.default_rng(0).permutation(_eras(100))
    split = eras.hold_out_last(numbers, share=0.2, embargo=8, seed=0)
    assert set(numbers[split.held_out]) == set(range(81, 101))
    assert set(numbers[split.training]) == set(range(1, 73))
    assert split.embargo == 8
    assert split.description == "held out the last 20 of 100 eras, with an embargo of 8 weeks"


@pytest.mark.parametrize("count", [2, 3, 4, 5, 10, 19, 20, 50, 79])
def test_hold_out_last_few_eras_reduces_the_embargo(count: int) -> None:
    numbers = _eras(count)
    split = eras.hold_out_last(numbers, share=0.2, embargo=8, seed=0)
    training, held_out = numbers[split.training], numbers[split.held_out]
    assert len(training)
    assert len(held_out)
    assert max(held_out) == count
    assert min(held_out) - max(training) == split.embargo + 1
    assert split.embargo == count // 10
    assert f"an embargo of {split.embargo} weeks (not 8: there are too few eras)" in split.description


def test_hold_out_last_one_era_is_split_by_the_seed() -> None:
    numbers = _eras(1, rows=50)
    splits = [eras.hold_out_last(numbers, share=0.2, embargo=8, seed=seed) for seed in (1, 1, 2)]
    assert splits[0].held_out.sum() == 10
    assert (splits[0].training ^ splits[0].held_out).all()
    np.testing.assert_array_equal(splits[0].held_out, splits[1].held_out)
    assert (splits[0].held_out != splits[2].held_out).any()
    assert "one era only" in splits[0].description


def test_hold_out_last_one_row_raises_value_error() -> None:
    with pytest.raises(ValueError, match="1 rows cannot be split"):
        eras.hold_out_last(np.array([1], dtype=np.int32), share=0.2, embargo=8, seed=0)


def test_sample_keeps_the_share_of_every_era_and_class() -> None:
    numbers = np.random.default_rng(0).permutation(np.repeat(np.arange(1, 11, dtype=np.int32), 1_000))
    labels = (np.random.default_rng(1).random(10_000) < 0.3).astype(np.int8)
    drawn = eras.sample(numbers, labels, 1_000, seed=3)
    assert drawn.sum() == 1_000
    assert labels[drawn].mean() == pytest.approx(labels.mean(), abs=0.001)
    for label in (0, 1):
        for era in range(1, 11):
            cell = (numbers == era) & (labels == label)
            assert abs(drawn[cell].sum() - 0.1 * cell.sum()) <= 1.5
    np.testing.assert_array_equal(drawn, eras.sample(numbers, labels, 1_000, seed=3))
    assert (drawn != eras.sample(numbers, labels, 1_000, seed=4)).any()


def test_sample_keeps_every_class_and_small_tables() -> None:
    labels = np.zeros(1_000, dtype=np.int8)
    labels[500] = 1
    drawn = eras.sample(_eras(10, rows=100), labels, 20, seed=0)
    assert drawn.sum() == 20
    assert drawn[500]
    assert eras.sample(_eras(10, rows=100), labels, 1_000, seed=0).all()


@pytest.mark.parametrize(
    "sizes", [[5] * 12, [5, 5, 5], [1_000, 1, 1], [1, 1, 1_000], [1, 1_000, 1, 1], [300, 1, 1, 1, 1, 1, 300]]
)
def test_assign_folds_each_has_whole_consecutive_eras(sizes: list[int]) -> None:
    numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    folds = eras.assign_folds(numbers, 3, 0)
    assert folds is not None
    assert set(folds) == {0, 1, 2}
    assert (np.diff(folds) >= 0).all()
    for era in range(len(sizes)):
        assert len(set(folds[numbers == era])) == 1


@pytest.mark.parametrize("sizes", [[5] * 12, [5, 5, 5], [1_000, 1, 1], [1, 1, 1_000], [5] * 40])
def test_assign_folds_embargo_leaves_out_at_most_a_tenth(sizes: list[int]) -> None:
    numbers = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    folds = eras.assign_folds(numbers, 3, 8)
    assert folds is not None
    assert set(folds) - {eras.NO_FOLD} == {0, 1, 2}
    left_out = len(set(numbers[folds == eras.NO_FOLD]))
    assert left_out == len(sizes) // 20 * 2


def test_assign_folds_equal_eras_give_equal_folds() -> None:
    folds = eras.assign_folds(_eras(120, rows=30), 3, 0)
    assert folds is not None
    assert np.bincount(folds).tolist() == [1_200] * 3


def test_assign_folds_too_few_eras_returns_none() -> None:
    assert eras.assign_folds(_eras(2), 3, 8) is None
