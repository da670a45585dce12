"""Walk-forward runs of past weeks: they use only the data known at that time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.dataset.unpack import UnpackedDataset, unpack
from numerai_pipeline.storage.layout import RunLayout
from tests.unit.dataset.raw_files import v5_dataset, v5_table
from tests.volumes import flip_a_byte

TRAIN, VALIDATION = range(1, 31), range(31, 61)
Walk = Callable[..., UnpackedDataset]


def tables(validation: pa.Table | None = None) -> dict[str, pa.Table]:
    whole = validation if validation is not None else v5_table("validation", VALIDATION)
    return {"train": v5_table("train", TRAIN), "validation": whole}


def dataset(directory: Path, era: int, validation: pa.Table | None = None) -> RawDataset:
    raw = v5_dataset(directory, tables(validation))
    files = {role: file for role, file in raw.files.items() if role != "live"}
    return replace(raw, files=files, era=era)


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path / "run")


@pytest.fixture
def walk(tmp_path: Path, layout: RunLayout) -> Walk:
    def attempt(era: int, validation: pa.Table | None = None, **choices: Any) -> UnpackedDataset:
        usual: dict[str, Any] = {
            "feature_set": "small",
            "target": "target_ender_20",
            "every_nth_era": 1,
            "inputs": "hash",
        }
        raw = choices.pop("raw", None) or dataset(tmp_path / "raw", era, validation)
        return unpack(raw, choices.pop("layout", layout), **{**usual, **choices})

    return attempt


def eras_of(path: Path) -> list[int]:
    return sorted({int(era) for era in pq.read_table(path, columns=["era"])["era"].to_pylist()})


@pytest.mark.parametrize(
    ("choices", "era", "last"),
    [
        ({}, 50, 41),
        ({"target": "target"}, 50, 33),
        ({"embargo": 0}, 50, 49),
        ({"embargo": 3}, 31, 27),
        ({}, 60, 51),
        # a week so long ago that its rows are in the training file
        ({}, 20, 11),
    ],
)
def test_training_ends_an_embargo_before_the_week_that_is_predicted(
    walk: Walk, layout: RunLayout, choices: dict[str, Any], era: int, last: int
) -> None:
    unpacked = walk(era, **choices)
    assert eras_of(layout.training) == list(range(1, last + 1))
    assert eras_of(layout.tournament) == [era]
    assert unpacked.known_until == f"{last:04d}"
    assert unpacked.training.data_types == {"train": 4 * last}
    assert unpacked.tournament.data_types == {"live": 4}


def test_the_targets_of_the_week_are_put_away(walk: Walk, layout: RunLayout) -> None:
    walk(50)
    tournament, targets = pq.read_table(layout.tournament), pq.read_table(layout.targets)
    raw = v5_table("validation", VALIDATION)
    then = raw.filter(pc.equal(raw["era"], "0050"))
    assert np.isnan(tournament["target"].to_numpy()).all()
    assert set(tournament["data_type"].to_pylist()) == {"live"}
    assert targets.column_names == ["id", "era", "target"]
    assert targets["id"].to_pylist() == tournament["id"].to_pylist() == then["id"].to_pylist()
    assert targets["target"].to_pylist() == then["target_ender_20"].to_pylist()
    assert tournament["feature_a"].to_pylist() == then["feature_a"].to_pylist()


def test_what_came_later_changes_nothing(walk: Walk, layout: RunLayout, tmp_path: Path) -> None:
    """Poison every row from the embargo on, except the features of the week itself: both tables stay as they are."""
    walk(50)
    before = [layout.training.read_bytes(), layout.tournament.read_bytes()]
    table = v5_table("validation", VALIDATION)
    numbers = np.array([int(era) for era in table["era"].to_pylist()])
    poisoned_targets, poisoned_features = numbers > 41, (numbers > 41) & (numbers != 50)

    def poison(column: str, value: float, mask: Any) -> pa.Array:
        original = table[column]
        return pc.if_else(pa.array(mask), pa.scalar(value, original.type), original)

    poisoned = v5_table(
        "validation",
        VALIDATION,
        replaced={
            "target": poison("target", 1, poisoned_targets),
            "target_ender_20": poison("target_ender_20", 1, poisoned_targets),
            **{name: poison(name, 4, poisoned_features) for name in ("feature_a", "feature_b", "feature_c")},
        },
    )
    elsewhere = RunLayout(tmp_path / "poisoned")
    walk(50, raw=dataset(tmp_path / "poisoned-raw", 50, poisoned), layout=elsewhere)
    assert [elsewhere.training.read_bytes(), elsewhere.tournament.read_bytes()] == before
    assert set(pq.read_table(elsewhere.targets)["target"].to_pylist()) == {1.0}


def test_thinned_eras_are_counted_from_the_newest_that_was_known(walk: Walk, layout: RunLayout) -> None:
    walk(50, every_nth_era=10)
    assert eras_of(layout.training) == [1, 11, 21, 31, 41]


def test_targets_with_a_turned_byte_are_put_away_again(walk: Walk, layout: RunLayout) -> None:
    walk(50)
    whole = layout.targets.read_bytes()
    assert walk(50).up_to_date
    flip_a_byte(layout.targets)
    assert not walk(50).up_to_date
    assert layout.targets.read_bytes() == whole


def test_a_week_whose_targets_are_not_known_yet_is_predicted_all_the_same(walk: Walk, layout: RunLayout) -> None:
    rows = 4 * len(VALIDATION)
    newest = np.arange(rows) >= rows - 4 * 5
    table = v5_table("validation", VALIDATION)
    masked = {
        name: pc.if_else(pa.array(newest), pa.scalar(None, table[name].type), table[name])
        for name in ("target", "target_ender_20")
    }
    kinds = pa.array(["test" if new else "validation" for new in newest])
    walk(58, v5_table("validation", VALIDATION, replaced={**masked, "data_type": kinds}))
    assert (
        pq.read_table(layout.targets)["target"].null_count
        + np.isnan(pq.read_table(layout.targets)["target"].to_numpy()).sum()
        == 4
    )
    assert eras_of(layout.training) == list(range(1, 50))


def test_weeks_that_are_not_there(walk: Walk) -> None:
    with pytest.raises(
        NotFoundError, match=r"do not have era 0061, the week of 2004-02-27: .* 2003-01-03 and 2004-02-20"
    ):
        walk(61)
    with pytest.raises(NotFoundError, match=r"no training data for era 0009: .*training must end with era 0000"):
        walk(9)


def test_up_to_date_means_the_targets_too(walk: Walk, layout: RunLayout) -> None:
    first = walk(50)
    assert walk(50).up_to_date
    layout.targets.write_bytes(b"damaged")
    again = walk(50)
    assert not again.up_to_date
    assert replace(again, up_to_date=True) == replace(first, up_to_date=True)
    assert pq.read_table(layout.targets).num_rows == 4


def test_unpack_id_in_train_and_validation_is_rejected_if_used(walk: Walk, tmp_path: Path) -> None:
    ids = [f"validation{number:05d}" for number in range(4 * len(VALIDATION))]
    ids[0] = "train00000"
    table = v5_table("validation", VALIDATION, replaced={"id": pa.array(ids)})
    with pytest.raises(BadInputError, match=r"'train00000' is also in row 1 of train\.parquet"):
        walk(50, table)


@pytest.mark.parametrize(
    ("targets", "days", "chosen"),
    [
        ({"target_a_20": 1, "target_a_60": 0, "target_b_20": 2, "target_b_60": 3}, 20, "target_a_20"),
        ({"target_a_20": 1, "target_a_60": 3, "target_b_20": 2, "target_b_60": 0}, 20, "target_b_20"),
        ({"target_a_20": 1, "target_a_60": 0, "target_b_20": 2, "target_b_60": 3}, 60, "target_a_60"),
        # one only: no need to compare
        ({"target_b_20": 2, "target_a_60": 0}, 20, "target_b_20"),
        # none of that length, or two of one kind: the dataset's default
        ({"target_a_20": 1, "target_b_20": 2}, 30, "target"),
        ({"target_a_20": 1, "target_b_20": 2}, 20, "target"),
    ],
)
def test_the_target_is_the_one_the_round_pays_on(
    tmp_path: Path, layout: RunLayout, targets: dict[str, int], days: int, chosen: str
) -> None:
    """Each target has the values of ``target`` shifted by some rows; without a shift, it is equal."""

    def columns(rows: int) -> dict[str, Any]:
        numbers = np.arange(rows)
        return {name: pa.array((numbers + shift) % 5 / 4, pa.float32()) for name, shift in targets.items()} | {
            "target_ender_20": None
        }

    whole = {
        "train": v5_table("train", TRAIN, replaced=columns(4 * len(TRAIN))),
        "validation": v5_table("validation", VALIDATION, replaced=columns(4 * len(VALIDATION))),
        "live": v5_table("live", range(61, 62)),
    }
    description = {
        "feature_sets": {"small": ["feature_a", "feature_b"]},
        "targets": ["target", *targets],
    }
    raw = replace(v5_dataset(tmp_path / "raw", whole, description), payout_days=days)
    unpacked = unpack(raw, layout, feature_set="small", target=None, every_nth_era=1, inputs="hash")
    assert unpacked.target == chosen
    assert (
        unpack(raw, layout, feature_set="small", target="target", every_nth_era=1, inputs="other").target == "target"
    ), "a requested target takes precedence over the payout target"
