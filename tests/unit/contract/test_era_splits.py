"""The splits by eras of models and searches on a table with every fourth era: their embargo is counted in weeks."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from numerai_contract import eras
from numerai_contract.exits import BadDataError
from numerai_contract.model_directory import ModelDirectory
from numerai_contract.parameters import Parameters
from numerai_contract.targets import classes
from numerai_contract.task import Task
from tests.samples import ROOT

Writer = Callable[..., Path]
ERAS, ROWS = range(4, 401, 4), 12
# those of three folds, without the last 16 weeks of the first two
FOLDS = [{*range(4, 117, 4)}, {*range(136, 253, 4)}, {*range(272, 401, 4)}]


def _module(image: str, name: str) -> Any:
    package = ModuleType(f"{image}_splits")
    package.__path__ = [str(ROOT / "model_images" / image)]
    sys.modules[package.__name__] = package
    return importlib.import_module(f"{package.__name__}.{name}")


def _columns(eras_of_table: Sequence[str], data_type: str) -> dict[str, Any]:
    random = np.random.default_rng(3)
    rows = len(eras_of_table) * ROWS
    return {
        "id": [f"{data_type}{row}" for row in range(rows)],
        "era": np.repeat(eras_of_table, ROWS),
        "data_type": [data_type] * rows,
        **{f"feature_{number}": random.integers(0, 5, rows, dtype=np.int8) for number in range(3)},
        "target": (np.arange(rows) % 2).astype(np.float32),
    }


def _weeks(numbers: Iterable[int]) -> list[str]:
    return [f"{number:04d}" for number in numbers]


@pytest.fixture
def task(write: Writer) -> Task:
    """A task on 100 eras, every fourth week, of 12 rows each."""
    training = write(_columns(_weeks(ERAS), "train"))
    return Task(Parameters({"OPERATION": "any", "TRAINING": str(training), "SEED": "1", "EMBARGO": "16"}))


def test_hold_out_last_of_every_fourth_era_counts_weeks(task: Task) -> None:
    numbers = task.training.era_numbers
    split = eras.hold_out_last(numbers, share=0.2, embargo=16, seed=1)
    assert (max(numbers[split.training]), min(numbers[split.held_out])) == (304, 324)
    assert split.embargo == 16
    assert split.description == "held out the last 20 of 100 eras, with an embargo of 16 weeks"


@pytest.mark.parametrize(
    ("first", "embargo", "training", "weeks"),
    [
        (40, 0, [*range(4, 161, 4), *range(204, 401, 4)], 0),
        (40, 3, [*range(4, 161, 4), *range(204, 401, 4)], 3),
        (40, 4, [*range(4, 157, 4), *range(208, 401, 4)], 4),
        (40, 16, [*range(4, 145, 4), *range(220, 401, 4)], 16),
        # a tenth of the eras, five on either side
        (40, 60, [*range(4, 141, 4), *range(224, 401, 4)], 23),
        (0, 16, [*range(60, 401, 4)], 16),
        (90, 16, [*range(4, 345, 4)], 16),
    ],
)
def test_hold_out_leaves_out_the_weeks_on_both_sides(
    task: Task, first: int, embargo: int, training: list[int], weeks: int
) -> None:
    numbers = task.training.era_numbers
    split = eras.hold_out(numbers, first, 10, embargo)
    assert sorted(set(numbers[split.held_out])) == [*ERAS[first : first + 10]]
    assert sorted(set(numbers[split.training])) == training
    assert split.embargo == weeks


def test_assign_folds_of_every_fourth_era_counts_weeks(task: Task) -> None:
    numbers = task.training.era_numbers
    folds = eras.assign_folds(numbers, 3, 16)
    assert folds is not None
    assert [set(numbers[folds == fold]) for fold in range(3)] == FOLDS
    assert sorted(set(numbers[folds == eras.NO_FOLD])) == [120, 124, 128, 132, 256, 260, 264, 268]
    for fold in range(3):
        others = numbers[(folds != fold) & (folds != eras.NO_FOLD)]
        assert np.abs(numbers[folds == fold][:, np.newaxis] - others).min() == 20


def test_auto_sklearn_holds_out_eras_after_the_embargo(task: Task) -> None:
    data = _module("auto_sklearn", "_training_data").load(task, 100_000)
    assert data.training_rows == 76 * ROWS
    assert len(data.labels) == 96 * ROWS
    assert data.embargo == 16


def test_svm_margins_are_those_of_folds_an_embargo_apart(task: Task) -> None:
    svm = _module("classic", "svm_operation")
    labeled = classes(task.training)
    features = task.training.features().astype(np.float32)
    kernel = svm.Kernel.of(features, 20, 1)
    sums = svm._sum_products(task, kernel, labeled)
    assert sums[:, -2, -2].tolist() == [29 * ROWS, 30 * ROWS, 33 * ROWS, 8 * ROWS]
    # neither the rows of the embargo nor those of the fold are in the machine of the fold
    _, machine, margins = svm._select([0.01], sums, svm._basis(kernel))
    assert margins.rows.tolist() == [29 * ROWS, 30 * ROWS, 33 * ROWS]
    total = sums.sum(axis=0)
    of_first = svm._solve(sums[1] + sums[2], svm._basis(kernel), 1 / (2 * 0.01 * len(features)))
    assert margins.margins[0] == pytest.approx(of_first @ sums[0, :, -2])
    np.testing.assert_allclose(machine, svm._solve(total, svm._basis(kernel), 1 / (2 * 0.01 * len(features))))


def test_tpot_folds_are_an_embargo_apart(task: Task) -> None:
    training_data, cross_validation = (_module("tpot", name) for name in ("_training_data", "_cross_validation"))
    numbers = task.training.era_numbers
    labels = classes(task.training).labels

    class Plan:
        folds, seed = 3, 1

    folds = training_data._folds(task, Plan, labels, numbers)
    learned_eras: list[set[int]] = []

    class Recorder:
        """A learner that records the eras of its rows, which are its only feature."""

        def get_params(self, **_options: object) -> dict[str, object]:
            return {}

        def fit(self, features: Any, _labels: Any) -> Recorder:
            learned_eras.append(set(features[:, 0].astype(int)))
            return self

        def predict_proba(self, features: Any) -> Any:
            above = 0.5 + 0.001 * np.sin(features[:, 0])
            return np.column_stack([1 - above, above])

    data = training_data.TrainingData(None, None, numbers[:, np.newaxis].astype(np.float32), labels, folds)
    assert not cross_validation.evaluate(Recorder(), data).cut_short
    first, second, third = FOLDS
    assert learned_eras == [second | third, first | third, first | second]


@pytest.mark.parametrize(
    ("names", "held_out", "left_out", "weeks"),
    [
        (_weeks(ERAS), [*range(204, 241, 4)], [*range(188, 201, 4), *range(244, 257, 4)], 16),
        # months
        ([f"era{number}" for number in ERAS], [*range(204, 241, 4)], [], 0),
    ],
)
def test_adversarial_split_by_eras_takes_the_most_similar_block(
    write: Writer, names: list[str], held_out: list[int], left_out: list[int], weeks: int
) -> None:
    training = write(_columns(names, "train"))
    task = Task(Parameters({"OPERATION": "any", "TRAINING": str(training), "EMBARGO": "16"}))
    numbers = task.training.era_numbers
    assert task.training.eras_are_weeks == (weeks > 0)
    # the most similar rows are those of a single era elsewhere; the last era has no targets
    similarity = np.where((numbers >= 204) & (numbers <= 240), 0.6, 0.4) + np.where(numbers == 40, 0.5, 0)
    known = numbers != 400
    split, embargo = _module("classic", "adversarial_validation_operation")._split_by_eras(
        task, similarity.astype(np.float32), known, 0.1
    )
    assert sorted(set(numbers[split.validation])) == held_out
    assert sorted(set(numbers[split.embargo])) == left_out
    assert split.validation.sum() == 10 * ROWS
    assert (split.training | split.validation | split.embargo).all()
    assert embargo == weeks


@pytest.mark.parametrize(
    ("names", "unit"),
    [(_weeks(range(1, 11)), "eras"), (_weeks(range(1, 10)), "rows"), ([f"era{number}" for number in ERAS], "rows")],
)
def test_adversarial_split_is_by_eras_from_ten_weeks_on(write: Writer, names: list[str], unit: str) -> None:
    training = write(_columns([*names, "0400" if names[0][0] == "0" else "era400"], "train"))
    task = Task(Parameters({"OPERATION": "any", "TRAINING": str(training)}))
    # the last era has no targets
    known = task.training.era_numbers != 400
    assert _module("classic", "adversarial_validation_operation")._default_unit(task, known) == unit


def test_adversarial_split_of_one_era_raises_bad_data(write: Writer) -> None:
    training = write(_columns(["0001"], "train"))
    task = Task(Parameters({"OPERATION": "any", "TRAINING": str(training)}))
    with pytest.raises(BadDataError, match=r"training\.parquet: one era has known targets.* Set SPLIT_BY=rows\."):
        _module("classic", "adversarial_validation_operation")._split_by_eras(
            task, np.zeros(ROWS, dtype=np.float32), np.ones(ROWS, dtype=bool), 0.1
        )


def test_auto_weka_shuffle_is_that_of_weka() -> None:
    """The numbers are those of WEKA 3.7.7: ``Instances.randomize(new Random(0))`` of 10 and of 21 rows."""
    shuffled = _module("auto_weka", "_era_folds").shuffled
    assert shuffled(10) == [4, 8, 9, 6, 3, 5, 2, 1, 7, 0]
    assert shuffled(21) == [16, 20, 5, 0, 6, 19, 9, 15, 10, 18, 14, 2, 3, 1, 17, 4, 13, 11, 7, 8, 12]


def test_auto_weka_folds_have_whole_eras_an_embargo_apart(task: Task) -> None:
    numbers, labels = task.training.era_numbers, classes(task.training).labels
    folds = _module("auto_weka", "_era_folds")
    order = folds.order(numbers, labels, 4, 12, 1)
    # each fold has as many rows as the smallest, of 22 eras
    assert len(set(order)) == len(order) == 4 * 22 * ROWS
    of_folds = numbers[order[folds.shuffled(len(order))]].reshape(4, -1)
    for fold in range(3):
        assert of_folds[fold + 1].min() - of_folds[fold].max() >= 16
    assert labels[order].mean() == pytest.approx(0.5, abs=0.01)
    assert folds.order(numbers[: 3 * ROWS], labels[: 3 * ROWS], 4, 0, 1) is None
    # one era has nearly all rows
    uneven = np.repeat(np.arange(4, dtype=np.int32), [1, 1, 900, 1])
    assert folds.order(uneven, labels[: len(uneven)], 4, 0, 1) is None


@pytest.mark.parametrize(
    ("embargo", "later", "unknown"),
    [
        ("16", ["0404", "0405"], [388, 392, 396, 400]),
        ("15", ["0404"], [392, 396, 400]),
        ("3", ["0404"], []),
        ("0", ["0401"], []),
        ("16", ["eraX", "0404"], [388, 392, 396, 400]),
        ("16", ["eraX"], []),
        # a tenth of the eras
        ("60", ["0401"], [*range(364, 401, 4)]),
        # the tables overlap
        ("16", ["0202", "0404"], [188, 192, 196, 200]),
    ],
)
def test_first_fit_does_not_learn_the_weeks_before_the_validation_table(
    write: Writer, tmp_path: Path, embargo: str, later: list[str], unknown: list[int]
) -> None:
    training = write(_columns(_weeks(ERAS), "train"))
    validation = write(_columns(later, "validation"), "validation.parquet")
    environment = {"OPERATION": "any", "TRAINING": str(training), "VALIDATION": str(validation), "EMBARGO": embargo}
    task = Task(Parameters(environment))
    table = task.training
    assert sorted(set(table.era_numbers[np.isnan(table.targets)])) == unknown
    assert np.isnan(table.targets).sum() == len(unknown) * ROWS
    task.model = ModelDirectory(tmp_path / "model")
    final = task.for_final_fit().training
    assert len(final) == (len(ERAS) + len(later)) * ROWS
    assert not np.isnan(final.targets).any()


@pytest.mark.parametrize(
    ("environment", "weeks"),
    [
        ({}, 8),
        ({"TARGET_DAYS": "20"}, 8),
        ({"TARGET_DAYS": "60"}, 16),
        ({"TARGET_DAYS": "22"}, 10),
        ({"TARGET_DAYS": "60", "EMBARGO": "3"}, 3),
        ({"EMBARGO": "0"}, 0),
    ],
)
def test_embargo_is_that_of_the_target_by_default(environment: dict[str, str], weeks: int) -> None:
    assert Parameters(environment).embargo == weeks
