"""Adversarial validation: equal tables, shifted tables, and its split."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images.conftest import (
    THREE_TABLES,
    FinishedRun,
    Runner,
    assert_preprocessed,
    change_columns,
    five_bins,
    graded,
    read_targets,
    with_missing_values,
    write_tables,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
OPERATION = "adversarial_validation"


def _run(runner: Runner, **environment: str) -> FinishedRun:
    """Run the operation in a new directory of the fit; the rows to predict are not among its inputs."""
    shutil.rmtree(runner.directory / "model", ignore_errors=True)
    return runner.run(OPERATION, {}, **THREE_TABLES | {"TESTING": ""} | environment)


def _split(finished: FinishedRun) -> tuple[NDArray[Any], NDArray[Any]]:
    """Similarity and marks of the validation rows, in the training table's order."""
    split = pq.read_table(finished.directory / "model" / "split.parquet")
    ids = pq.read_table(finished.directory / "training.parquet", columns=["id"])["id"]
    assert split["id"].to_pylist() == ids.to_pylist()
    assert (finished.directory / "model" / "split.parquet.manifest.json").is_file()
    return split["similarity"].to_numpy(), split["split"].to_numpy(zero_copy_only=False) == "validation"


def _shift(directory: Path, by: float) -> NDArray[np.bool_]:
    """Shift three features of the validation table, and of a tenth of the training rows; return the marks of these."""
    shifted: NDArray[np.bool_] = np.random.default_rng(8).random(3_000) < 0.1
    for name, rows in (("validation", slice(None)), ("training", shifted)):
        path = directory / f"{name}.parquet"
        table = pq.read_table(path)
        columns = {}
        for feature in ("feature20", "feature21", "feature22"):
            values = table[feature].to_numpy().copy()
            values[rows] += np.float32(by)
            columns[feature] = values
        change_columns(path, **columns)
    return shifted


def test_adversarial_validation_equal_tables_have_auc_one_half(runner: Runner) -> None:
    write_tables(runner.directory)
    finished = assert_preprocessed(_run(runner, INPUTS="0f3a"))
    chosen = finished.report["chosen"]
    # measured: .5003, folds from .4853 to .5147
    assert 0.46 < chosen["auc"] < 0.54
    assert len(chosen["auc_of_folds"]) == 5
    assert any("the tables hardly differ" in note for note in finished.report["notes"])
    similarity, validation = _split(finished)
    assert validation.sum() == 300
    assert similarity[validation].min() >= similarity[~validation].max()
    # nearly every row has a different similarity, so that the seed determines very little
    assert len(np.unique(similarity)) > 2_900
    assert finished.report["rows"] == {"training": 2_700, "held_out": 300}
    assert (finished.directory / "model" / "plots" / f"{OPERATION}.png").read_bytes().startswith(b"\x89PNG")


def test_adversarial_validation_shift_selects_the_similar_rows(runner: Runner) -> None:
    write_tables(runner.directory)
    shifted = _shift(runner.directory, 0.8)
    finished = assert_preprocessed(_run(runner))
    chosen = finished.report["chosen"]
    assert chosen["auc"] > 0.9
    _, validation = _split(finished)
    # nearly all rows of the validation part are rows that were shifted like the validation table's
    assert shifted[validation].mean() > 0.9
    drifting = {feature["feature"]: feature for feature in chosen["drifting_features"]}
    assert list(drifting)[:3] == sorted(list(drifting)[:3], key=lambda name: -drifting[name]["importance"])
    assert set(list(drifting)[:3]) == {"feature20", "feature21", "feature22"}
    assert all(drifting[name]["shift"] > 1 for name in list(drifting)[:3])
    assert all(0.5 < drifting[name]["kolmogorov_smirnov"] <= 1 for name in list(drifting)[:3])
    roc = chosen["roc"]
    assert (roc["true_positive_rate"][0], roc["true_positive_rate"][-1]) == (0, 1)
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(chosen["auc"], abs=0.02)


@pytest.mark.parametrize("method", ["extra_trees", "random_forest"])
def test_adversarial_validation_forests_detect_a_shift(runner: Runner, method: str) -> None:
    write_tables(runner.directory)
    shifted = _shift(runner.directory, 0.8)
    finished = assert_preprocessed(_run(runner, METHOD=method))
    assert finished.report["chosen"]["auc"] > 0.9
    _, validation = _split(finished)
    assert validation.sum() == 300
    assert shifted[validation].mean() > 0.8


def test_adversarial_validation_seed_determines_equal_rows(runner: Runner) -> None:
    write_tables(runner.directory, modify=np.zeros_like)
    splits = []
    for seed in ("67", "67", "1"):
        assert_preprocessed(_run(runner, SEED=seed))
        splits.append((runner.directory / "model" / "split.parquet").read_bytes())
    assert splits[0] == splits[1] != splits[2]
    similarity, validation = _split(FinishedRun(0, [], runner.directory, OPERATION))
    assert len(np.unique(similarity)) <= 5
    assert validation.sum() == 300


def test_adversarial_validation_folds_by_eras_ignore_eras(runner: Runner) -> None:
    write_tables(runner.directory)
    for name in ("training", "validation"):
        path = runner.directory / f"{name}.parquet"
        eras = pq.read_table(path, columns=["era"])["era"].to_numpy(zero_copy_only=False)
        random = np.random.default_rng(len(eras))
        marks = dict(zip(np.unique(eras), random.random(len(np.unique(eras)), dtype=np.float32), strict=True))
        change_columns(path, feature9=np.array([marks[era] for era in eras]))
    of_rows = assert_preprocessed(_run(runner)).report["chosen"]["auc"]
    of_eras = assert_preprocessed(_run(runner, FOLDS_BY="eras")).report["chosen"]["auc"]
    assert of_rows > 0.95
    assert of_eras < 0.8


def test_adversarial_validation_weeks_are_split_by_eras_with_an_embargo(runner: Runner) -> None:
    """Every fourth week; eras 31 to 36 of 60 are shifted as the validation table's."""
    write_tables(runner.directory)
    for name, rows in (("training", slice(30 * 50, 36 * 50)), ("validation", slice(None))):
        path = runner.directory / f"{name}.parquet"
        table = pq.read_table(path)
        shifted = table["feature20"].to_numpy().copy()
        shifted[rows] += np.float32(0.8)
        numbers = [4 * int(era.removeprefix("era")) for era in table["era"].to_pylist()]
        change_columns(path, feature20=shifted, era=pa.array([f"{number:04d}" for number in numbers]))
    finished = assert_preprocessed(_run(runner, EMBARGO="8"))
    chosen = finished.report["chosen"]
    assert (chosen["split_by"], chosen["embargo_weeks"]) == ("eras", 8)
    split = pq.read_table(runner.directory / "model" / "split.parquet")["split"].to_numpy(zero_copy_only=False)
    parts = [set(era) for era in np.split(split, 60)]
    assert parts[:28] == [{"train"}] * 28
    assert parts[28:38] == [{"embargo"}] * 2 + [{"validation"}] * 6 + [{"embargo"}] * 2
    assert parts[38:] == [{"train"}] * 22
    assert finished.report["rows"] == {"training": 50 * 50, "held_out": 6 * 50}
    of_rows = assert_preprocessed(_run(runner, SPLIT_BY="rows")).report
    assert of_rows["chosen"]["split_by"] == "rows"
    assert of_rows["rows"] == {"training": 2_700, "held_out": 300}


def test_adversarial_validation_missing_features_are_accepted(runner: Runner) -> None:
    write_tables(runner.directory, modify=with_missing_values)
    finished = assert_preprocessed(_run(runner, ROW_LIMIT="500", VALIDATION_SHARE="0.2"))
    assert "learning from 1,000 of 3,800 rows, drawn evenly from all eras (ROW_LIMIT)" in finished.report["notes"]
    assert _split(finished)[1].sum() == 600


def test_adversarial_validation_selects_rows_with_a_target(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    path = runner.directory / "training.parquet"
    targets = read_targets(runner.directory).copy()
    targets[:1_000] = np.nan
    change_columns(path, target=targets)
    _, validation = _split(assert_preprocessed(_run(runner)))
    assert validation.sum() == 200
    assert not validation[:1_000].any()


@pytest.mark.parametrize(
    ("environment", "code", "last_line"),
    [
        ({"SPLIT_BY": "weeks"}, 64, "SPLIT_BY is 'weeks': allowed are rows, eras"),
        ({"METHOD": "forest"}, 64, "METHOD is 'forest': allowed are gradient_boosting, extra_trees, random_forest"),
        ({"VALIDATION_SHARE": "0.9"}, 64, "VALIDATION_SHARE is '0.9': allowed is a number from 0.01 to 0.5"),
        (
            {"MODEL": ""},
            64,
            "MODEL is not set: the operation 'adversarial_validation' writes its files into this directory.",
        ),
        ({"VALIDATION": ""}, 64, "VALIDATION is not set"),
        ({"MODEL": "/data"}, 64, "MODEL is '/data', which contains TRAINING (/data/training.parquet)"),
        ({"MEMORY_LIMIT": "128"}, 64, "MEMORY_LIMIT is 128 MiB, and 1,800 rows of 50 features need about"),
    ],
)
def test_adversarial_validation_invalid_parameter_exits_with_64(
    runner: Runner, environment: dict[str, str], code: int, last_line: str
) -> None:
    write_tables(runner.directory)
    finished = _run(runner, **environment)
    assert finished.code == code
    assert last_line in finished.lines[-1]
    assert not (runner.directory / "model" / "split.parquet").exists()


def test_adversarial_validation_live_rows_do_not_change_the_split(runner: Runner) -> None:
    write_tables(runner.directory)
    splits = []
    for testing in ("/data/live.parquet", "/data/training.parquet", ""):
        assert_preprocessed(_run(runner, TESTING=testing))
        splits.append((runner.directory / "model" / "split.parquet").read_bytes())
    assert splits[0] == splits[1] == splits[2]


def test_adversarial_validation_three_rows_exit_with_65(runner: Runner) -> None:
    write_tables(runner.directory)
    path = runner.directory / "validation.parquet"
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    finished = _run(runner)
    assert finished.code == 65
    assert "validation.parquet: 3 rows are too few; 5 folds need one each" in finished.lines[-1]
