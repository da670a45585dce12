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
from numerai_pipeline.dataset.store import find_datasets
from tests.samples import payout
from tests.unit.dataset.raw_files import v5_dataset, v5_table
from tests.unit.dataset.unpacking import Unpacked, Volume
from tests.volumes import flip_a_byte

TRAIN, VALIDATION = range(1, 31), range(31, 61)
Walk = Callable[..., Unpacked]


def tables(validation: pa.Table | None = None) -> dict[str, pa.Table]:
    whole = validation if validation is not None else v5_table("validation", VALIDATION)
    return {"train": v5_table("train", TRAIN), "validation": whole}


def dataset(directory: Path, era: int, validation: pa.Table | None = None) -> RawDataset:
    raw = v5_dataset(directory, tables(validation))
    files = {role: file for role, file in raw.files.items() if role != "live"}
    return replace(raw, files=files, era=era)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "data")


@pytest.fixture
def walk(tmp_path: Path, volume: Volume) -> Walk:
    def attempt(era: int, validation: pa.Table | None = None, **choices: Any) -> Unpacked:
        raw = choices.pop("raw", None) or dataset(tmp_path / "raw", era, validation)
        place: Volume = choices.pop("volume", volume)
        return place.unpack(raw, **{"target": "target_ender_20", **choices})

    return attempt


def eras_of(path: Path) -> list[int]:
    return sorted({int(era) for era in pq.read_table(path, columns=["era"])["era"].to_pylist()})


@pytest.mark.parametrize(
    ("choices", "era", "first_held_out", "last"),
    [
        ({}, 50, 31, 41),
        ({"embargo": 0}, 50, 31, 49),
        ({}, 60, 31, 51),
        # the validation file has less than a tenth of the known eras: the last fifth is held out
        ({"target": "target"}, 50, 28, 33),
        ({"embargo": 3}, 35, 26, 31),
        # a week so long ago that its rows are in the training file
        ({"embargo": 3}, 31, 23, 27),
        ({}, 20, 10, 11),
        # the earliest week: two eras are known
        ({}, 11, 2, 2),
    ],
)
def test_walk_forward_known_data_ends_an_embargo_before_the_week(
    walk: Walk, volume: Volume, choices: dict[str, Any], era: int, first_held_out: int, last: int
) -> None:
    unpacked = walk(era, **choices)
    assert eras_of(volume.training) == list(range(1, first_held_out))
    assert eras_of(volume.validation) == list(range(first_held_out, last + 1))
    assert eras_of(volume.live) == [era]
    made = unpacked.dataset
    assert (made.known_until, made.known_before) == (f"{last:04d}", era)
    assert made.training.data_types == {"train": 4 * (first_held_out - 1)}
    assert made.validation.data_types == {"validation": 4 * (last - first_held_out + 1)}
    assert unpacked.live.data_types == {"live": 4}


def test_walk_forward_weeks_of_a_group_share_a_dataset(walk: Walk, volume: Volume) -> None:
    """Eras 48 to 51 are a group of four: what was known in week 48 decides the fit of all."""
    made = {era: walk(era, refit_every=4) for era in (47, 48, 49, 51, 52)}
    assert len({made[era].dataset.key for era in (48, 49, 51)}) == 1
    assert len({made[era].dataset.key for era in (47, 48, 52)}) == 3
    known = {era: unpacked.dataset.known_until for era, unpacked in made.items()}
    assert known == {47: "0035", 48: "0039", 49: "0039", 51: "0039", 52: "0043"}
    assert [made[era].live.eras for era in (48, 49, 51)] == [["0048"], ["0049"], ["0051"]]
    assert len(list(volume.data.datasets_root.glob("[!.]*"))) == 3
    assert (
        find_datasets(
            volume.data,
            source="practice",
            version="latest",
            feature_set="small",
            target="target_ender_20",
            every_nth_era=1,
        )
        == []
    ), "a live run must not predict with the fit of a past week"


def test_walk_forward_targets_of_the_week_are_in_a_separate_table(walk: Walk, volume: Volume) -> None:
    walk(50)
    live, targets = pq.read_table(volume.live), pq.read_table(volume.run.targets)
    raw = v5_table("validation", VALIDATION)
    then = raw.filter(pc.equal(raw["era"], "0050"))
    assert np.isnan(live["target"].to_numpy()).all()
    assert set(live["data_type"].to_pylist()) == {"live"}
    assert targets.column_names == ["id", "era", "target"]
    assert targets["id"].to_pylist() == live["id"].to_pylist() == then["id"].to_pylist()
    assert targets["target"].to_pylist() == then["target_ender_20"].to_pylist()
    assert live["feature_a"].to_pylist() == then["feature_a"].to_pylist()


@pytest.mark.parametrize(("refit_every", "last"), [(1, 41), (4, 39)])
def test_walk_forward_later_eras_poisoned_leave_the_same_bytes(
    walk: Walk, volume: Volume, tmp_path: Path, refit_every: int, last: int
) -> None:
    """Poison every row after the known eras, except the features of the week itself, with values and with gaps."""
    walk(50, refit_every=refit_every)
    before = [path.read_bytes() for path in (volume.training, volume.validation, volume.live)]
    table = v5_table("validation", VALIDATION)
    numbers = np.array([int(era) for era in table["era"].to_pylist()])
    poisoned_targets, poisoned_features = numbers > last, (numbers > last) & (numbers != 50)

    def poison(column: str, value: float | None, mask: Any) -> pa.Array:
        original = table[column]
        return pc.if_else(pa.array(mask), pa.scalar(value, original.type), original)

    poisoned = v5_table(
        "validation",
        VALIDATION,
        replaced={
            "target": poison("target", 1, poisoned_targets),
            "target_ender_20": poison("target_ender_20", 1, poisoned_targets),
            **{name: poison(name, 4, poisoned_features) for name in ("feature_a", "feature_b")},
            "feature_c": poison("feature_c", None, poisoned_features),
        },
    )
    elsewhere = Volume(tmp_path / "poisoned")
    walk(50, raw=dataset(tmp_path / "poisoned-raw", 50, poisoned), volume=elsewhere, refit_every=refit_every)
    assert [path.read_bytes() for path in (elsewhere.training, elsewhere.validation, elsewhere.live)] == before
    assert set(pq.read_table(elsewhere.run.targets)["target"].to_pylist()) == {1.0}


def test_walk_forward_every_nth_era_counts_from_the_newest_known_era(walk: Walk, volume: Volume) -> None:
    walk(50, every_nth_era=10)
    assert eras_of(volume.training) == [10, 20, 30]
    assert eras_of(volume.validation) == list(range(31, 42))


@pytest.mark.parametrize("damage", [flip_a_byte, lambda path: path.write_bytes(b"damaged"), Path.unlink])
def test_write_live_damaged_targets_are_written_again(
    walk: Walk, volume: Volume, damage: Callable[[Path], object]
) -> None:
    walk(50)
    whole = volume.run.targets.read_bytes()
    assert walk(50).live.up_to_date
    damage(volume.run.targets)
    assert not walk(50).live.up_to_date
    assert volume.run.targets.read_bytes() == whole


def test_walk_forward_week_without_known_targets_is_predicted(walk: Walk, volume: Volume) -> None:
    rows = 4 * len(VALIDATION)
    newest = np.arange(rows) >= rows - 4 * 5
    table = v5_table("validation", VALIDATION)
    masked = {
        name: pc.if_else(pa.array(newest), pa.scalar(None, table[name].type), table[name])
        for name in ("target", "target_ender_20")
    }
    kinds = pa.array(["test" if new else "validation" for new in newest])
    walk(58, v5_table("validation", VALIDATION, replaced={**masked, "data_type": kinds}))
    assert np.isnan(pq.read_table(volume.run.targets)["target"].to_numpy()).sum() == 4
    assert (eras_of(volume.training), eras_of(volume.validation)) == (list(range(1, 31)), list(range(31, 50)))


def test_walk_forward_week_outside_the_data_raises_not_found(walk: Walk) -> None:
    with pytest.raises(
        NotFoundError, match=r"do not have era 0061, the week of 2004-02-27: .* 2003-01-03 and 2004-02-20"
    ):
        walk(61)
    for era, last, count in ((9, "0000", 0), (10, "0001", 1)):
        expected = (
            rf"no training data for era {era:04d}: training must end with era {last}.* has {count} eras with known"
        )
        with pytest.raises(NotFoundError, match=expected):
            walk(era)


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
def test_unpack_default_target_is_the_payout_target(
    tmp_path: Path, volume: Volume, targets: dict[str, int], days: int, chosen: str
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
    raw = replace(v5_dataset(tmp_path / "raw", whole, description), payout=payout(days) if days else ())
    assert volume.unpack(raw).dataset.target == chosen
    assert volume.unpack(raw, target="target").dataset.target == "target", (
        "a requested target takes precedence over the payout target"
    )
