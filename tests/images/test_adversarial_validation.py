"""Adversarial validation: what it says of tables that are alike, of those that are not, and its split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images.conftest import Ended, Runner, five_bins, graded, prepared, spoilt, write_tables

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
OPERATION = "adversarial_validation"


def _split(ended: Ended) -> tuple[NDArray[Any], NDArray[Any]]:
    """Likeness and marks of the rows to validate on, in the training table's order."""
    split = pq.read_table(ended.directory / "split.parquet")
    ids = pq.read_table(ended.directory / "training.parquet", columns=["id"])["id"]
    assert split["id"].to_pylist() == ids.to_pylist()
    assert (ended.directory / "split.parquet.manifest.json").is_file()
    return split["likeness"].to_numpy(), split["split"].to_numpy(zero_copy_only=False) == "validation"


def _change(path: Path, **columns: Any) -> None:
    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(table, path)


def _shift(directory: Path, by: float) -> NDArray[np.bool_]:
    """Move three features of the tournament table, and of a tenth of the training rows; return which."""
    moved: NDArray[np.bool_] = np.random.default_rng(8).random(3_000) < 0.1
    for name, rows in (("tournament", slice(None)), ("training", moved)):
        path = directory / f"{name}.parquet"
        table = pq.read_table(path)
        columns = {}
        for feature in ("feature20", "feature21", "feature22"):
            values = table[feature].to_numpy().copy()
            values[rows] += np.float32(by)
            columns[feature] = values
        _change(path, **columns)
    return moved


def test_tables_that_are_alike_cannot_be_told_apart(runner: Runner) -> None:
    write_tables(runner.directory)
    ended = prepared(runner.run(OPERATION, INPUTS="0f3a"))
    chosen = ended.report["chosen"]
    # measured: .5003, folds from .4853 to .5147
    assert 0.46 < chosen["auc"] < 0.54
    assert len(chosen["auc_of_folds"]) == 5
    assert any("as good as alike" in note for note in ended.report["notes"])
    likeness, validation = _split(ended)
    assert validation.sum() == 300
    assert likeness[validation].min() >= likeness[~validation].max()
    # every row has a likeness of its own: hardly anything is left to chance
    assert len(np.unique(likeness)) > 2_900
    assert ended.report["rows"] == {"training": 2_700, "held_out": 300, "tournament": 1_000}
    assert (ended.directory / "plots" / f"{OPERATION}.png").read_bytes().startswith(b"\x89PNG")


def test_the_rows_most_like_a_shifted_tournament_are_kept_to_validate_on(runner: Runner) -> None:
    write_tables(runner.directory)
    moved = _shift(runner.directory, 0.8)
    ended = prepared(runner.run(OPERATION))
    chosen = ended.report["chosen"]
    assert chosen["auc"] > 0.9
    _, validation = _split(ended)
    # of the rows that were moved like the tournament's, nearly all are among the tenth that was kept
    assert moved[validation].mean() > 0.9
    drifting = {feature["feature"]: feature for feature in chosen["drifting_features"]}
    assert list(drifting)[:3] == sorted(list(drifting)[:3], key=lambda name: -drifting[name]["importance"])
    assert set(list(drifting)[:3]) == {"feature20", "feature21", "feature22"}
    assert all(drifting[name]["shift"] > 1 for name in list(drifting)[:3])
    assert all(0.5 < drifting[name]["kolmogorov_smirnov"] <= 1 for name in list(drifting)[:3])
    roc = chosen["roc"]
    assert (roc["true_positive_rate"][0], roc["true_positive_rate"][-1]) == (0, 1)
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(chosen["auc"], abs=0.02)


@pytest.mark.parametrize("method", ["extra_trees", "random_forest"])
def test_forests_see_a_shift_as_well(runner: Runner, method: str) -> None:
    write_tables(runner.directory)
    moved = _shift(runner.directory, 0.8)
    ended = prepared(runner.run(OPERATION, METHOD=method))
    assert ended.report["chosen"]["auc"] > 0.9
    _, validation = _split(ended)
    assert validation.sum() == 300
    assert moved[validation].mean() > 0.8


def test_the_same_seed_makes_the_same_split_and_ties_fall_by_the_seed(runner: Runner) -> None:
    write_tables(runner.directory, spoil=np.zeros_like)
    splits = []
    for seed in ("67", "67", "1"):
        prepared(runner.run(OPERATION, SEED=seed))
        splits.append((runner.directory / "split.parquet").read_bytes())
    assert splits[0] == splits[1] != splits[2]
    likeness, validation = _split(Ended(0, [], runner.directory, OPERATION))
    assert len(np.unique(likeness)) <= 5
    assert validation.sum() == 300


def test_folds_of_eras_do_not_recognise_eras(runner: Runner) -> None:
    write_tables(runner.directory)
    for name in ("training", "tournament"):
        path = runner.directory / f"{name}.parquet"
        eras = pq.read_table(path, columns=["era"])["era"].to_numpy(zero_copy_only=False)
        random = np.random.default_rng(len(eras))
        marks = dict(zip(np.unique(eras), random.random(len(np.unique(eras)), dtype=np.float32), strict=True))
        _change(path, feature9=np.array([marks[era] for era in eras]))
    of_rows = prepared(runner.run(OPERATION)).report["chosen"]["auc"]
    of_eras = prepared(runner.run(OPERATION, FOLDS_BY="eras")).report["chosen"]["auc"]
    assert of_rows > 0.95
    assert of_eras < 0.8


def test_takes_missing_and_constant_features_and_samples(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    ended = prepared(runner.run(OPERATION, ROW_LIMIT="500", VALIDATION_SHARE="0.2"))
    assert "learning from 1,000 of 4,000 rows, drawn evenly from all eras (ROW_LIMIT)" in ended.report["notes"]
    assert _split(ended)[1].sum() == 600


def test_only_rows_with_a_target_are_kept_to_validate_on(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    path = runner.directory / "training.parquet"
    targets = pq.read_table(path)["target"].to_numpy().copy()
    targets[:1_000] = np.nan
    _change(path, target=targets)
    _, validation = _split(prepared(runner.run(OPERATION)))
    assert validation.sum() == 200
    assert not validation[:1_000].any()


@pytest.mark.parametrize(
    ("environment", "code", "last_line"),
    [
        ({"METHOD": "forest"}, 64, "METHOD is 'forest': allowed are gradient_boosting, extra_trees, random_forest"),
        ({"VALIDATION_SHARE": "0.9"}, 64, "VALIDATION_SHARE is '0.9': allowed is a number from 0.01 to 0.5"),
        ({"MEMORY_LIMIT": "128"}, 64, "MEMORY_LIMIT is 128 MiB, and 4,000 rows of 50 features need about"),
    ],
)
def test_mistakes_end_in_their_code(runner: Runner, environment: dict[str, str], code: int, last_line: str) -> None:
    write_tables(runner.directory)
    ended = runner.run(OPERATION, {}, **environment)
    assert ended.code == code
    assert last_line in ended.lines[-1]
    assert not (runner.directory / "split.parquet").exists()


def test_a_table_with_hardly_a_row_is_bad_data(runner: Runner) -> None:
    write_tables(runner.directory)
    path = runner.directory / "tournament.parquet"
    pq.write_table(pq.read_table(path).slice(0, 3), path)
    ended = runner.run(OPERATION)
    assert ended.code == 65
    assert "tournament.parquet: 3 rows are too few; 5 folds need one each" in ended.lines[-1]
