"""Further targets of a run: columns of the training and the validation table, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.dataset.csv_export import write_tournament, write_training_csv
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.dataset.store import Dataset, find_datasets
from numerai_pipeline.storage.layout import fingerprint
from numerai_pipeline.storage.manifests import verified_manifest
from tests.unit.dataset.raw_files import classic_dataset, csv_table, v5_dataset, v5_table, v5_tables
from tests.unit.dataset.unpacking import Volume

CYRUS = "target_cyrusd_60"
FEATURES = {"feature_sets": {"small": ["feature_a", "feature_b"]}, "targets": ["target", "target_ender_20", CYRUS]}
COLUMNS = ["id", "era", "data_type", "feature_b", "feature_a", "target"]


def _cyrus(rows: int, unknown: int = 0) -> pa.Array:
    numbers = np.arange(rows)
    return pa.array((numbers + 3) % 5 / 4, pa.float32(), mask=numbers >= rows - unknown)


def _tables(**replaced: dict[str, Any]) -> dict[str, pa.Table]:
    """Rows of v5: 32 of training and 12 of validation, of which the last 4 have no CYRUS yet."""
    columns = {"train": {CYRUS: _cyrus(32)}, "validation": {CYRUS: _cyrus(12, 4)}, "live": {CYRUS: _cyrus(4, 4)}}
    return v5_tables(**{kind: {**found, **replaced.get(kind, {})} for kind, found in columns.items()})


@pytest.fixture
def raw(tmp_path: Path) -> RawDataset:
    return v5_dataset(tmp_path / "raw", _tables(), FEATURES)


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    return Volume(tmp_path / "data")


def test_further_targets_are_columns_of_the_tables_of_the_fit(volume: Volume, raw: RawDataset) -> None:
    alone = volume.unpack(raw)
    before = {path: pq.read_table(path) for path in (volume.training, volume.validation)}
    unpacked = volume.unpack(raw, targets=["target_ender_20", CYRUS])
    dataset = unpacked.dataset
    assert (dataset.target, dataset.further_targets) == ("target", (CYRUS, "target_ender_20"))
    assert dataset.key != alone.dataset.key
    for (_, expected), path in zip(before.items(), (volume.training, volume.validation), strict=True):
        found = pq.read_table(path)
        # the same rows and columns, and the further targets after them
        assert found.column_names == [*COLUMNS, CYRUS, "target_ender_20"]
        assert found.select(COLUMNS).equals(expected)
        assert found[CYRUS].type == pa.float32()
        manifest = verified_manifest(path)
        assert manifest is not None
        assert manifest.columns == found.column_names
    known = pq.read_table(volume.validation)[CYRUS].to_pylist()
    assert known[:8] == _cyrus(12)[:8].to_pylist()
    assert np.isnan(known[8:]).all()
    assert pq.read_table(volume.live).column_names == COLUMNS
    assert dataset.known_until == alone.dataset.known_until
    assert "target 'target', 'target_cyrusd_60', 'target_ender_20', known" in str(dataset)


def test_dataset_without_further_targets_has_the_key_and_the_metadata_of_before(
    volume: Volume, raw: RawDataset
) -> None:
    dataset = volume.unpack(raw, targets=[]).dataset
    request = {"feature_set": "small", "target": None, "every_nth_era": 1, "embargo": None, "payout_days": None}
    made_from = {role: raw.files[role].sha256 for role in ("features", "train", "validation")}
    inputs = {"format": 1, "source": "practice", "version": "v5.3", "made_from": made_from, "known_before": None}
    assert dataset.key == fingerprint({**inputs, **request})
    content = json.loads(dataset.layout.metadata.read_text())
    assert content["request"] == request
    assert list(content)[-2:] == ["training", "validation"]
    assert Dataset.read(dataset.layout) == dataset


def test_further_targets_are_a_set_without_the_main_one(volume: Volume, raw: RawDataset) -> None:
    choices = ([CYRUS, "target_ender_20"], ["target_ender_20", CYRUS, CYRUS], [CYRUS])
    made = [volume.unpack(raw, target="target_ender_20", targets=targets).dataset for targets in choices]
    assert {dataset.key for dataset in made} == {made[0].key}
    assert made[0].further_targets == (CYRUS,)
    assert volume.unpack(raw, target="target_ender_20", targets=["target_ender_20"]).dataset.further_targets == ()
    assert Dataset.read(made[0].layout) == made[0]


def test_further_target_with_the_values_of_the_column_target_is_left_out(tmp_path: Path, volume: Volume) -> None:
    tables = _tables()
    raw = v5_dataset(tmp_path / "raw", {kind: _renamed(table) for kind, table in tables.items()}, FEATURES)
    assert volume.unpack(raw, targets=[CYRUS, "target_ender_20"]).dataset.further_targets == (CYRUS,)


def _renamed(table: pa.Table) -> pa.Table:
    return table.set_column(table.column_names.index("target_ender_20"), "target_ender_20", table["target"])


@pytest.mark.parametrize(
    ("choices", "embargo"),
    [
        ({"target": "target_ender_20"}, 8),
        ({"target": "target_ender_20", "targets": [CYRUS]}, 16),
        ({"target": CYRUS, "targets": ["target_ender_20"]}, 16),
        ({"target": "target_ender_20", "targets": [CYRUS], "embargo": 5}, 5),
    ],
)
def test_embargo_is_that_of_the_longest_horizon(
    volume: Volume, raw: RawDataset, choices: dict[str, Any], embargo: int
) -> None:
    dataset = volume.unpack(raw, **choices).dataset
    assert dataset.embargo == embargo
    assert dataset.target_days == (60 if dataset.target == CYRUS else 20)


def test_walk_forward_data_ends_the_longest_embargo_before_the_week(tmp_path: Path, volume: Volume) -> None:
    tables = {
        "train": v5_table("train", range(1, 31), replaced={CYRUS: _cyrus(120)}),
        "validation": v5_table("validation", range(31, 61), replaced={CYRUS: _cyrus(120)}),
    }
    raw = v5_dataset(tmp_path / "raw", {**tables, "live": v5_table("live", [61])}, FEATURES)
    past = replace(raw, files={role: file for role, file in raw.files.items() if role != "live"}, era=55)
    assert volume.unpack(past, target="target_ender_20").dataset.known_until == "0046"
    assert volume.unpack(past, target="target_ender_20", targets=[CYRUS]).dataset.known_until == "0038"
    # the true targets of the week are those that score it
    assert pq.read_table(volume.run.targets).column_names == ["id", "era", "target"]


def test_unknown_further_target_lists_the_available_ones(volume: Volume, raw: RawDataset) -> None:
    with pytest.raises(NotFoundError) as caught:
        volume.unpack(raw, targets=[CYRUS, "target_cyrus_60"])
    assert str(caught.value) == (
        "features.json: target 'target_cyrus_60' does not exist: choose one of target, target_ender_20,"
        " target_cyrusd_60"
    )
    assert not list(volume.data.datasets_root.glob("[!.]*"))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([1.0] * 32, "column 'target_cyrusd_60': of 32 rows, 32 are above 0.5 and 0 below"),
        ([None] * 32, "column 'target_cyrusd_60': of 32 rows, 0 are above 0.5 and 0 below"),
        ([0.0, 1.0, 1.5, 0.5] * 8, "train.parquet: row 3, column 'target_cyrusd_60': 1.5 is outside 0 to 1"),
    ],
)
def test_unusable_further_target_names_its_column(
    tmp_path: Path, volume: Volume, values: list[float | None], says: str
) -> None:
    tables = _tables(train={CYRUS: pa.array(values, pa.float32())})
    with pytest.raises(BadInputError) as caught:
        volume.unpack(v5_dataset(tmp_path / "raw", tables, FEATURES), targets=[CYRUS])
    assert says in str(caught.value)


def test_further_target_missing_in_validation_is_named(tmp_path: Path, volume: Volume) -> None:
    tables = _tables(validation={CYRUS: None})
    with pytest.raises(BadInputError, match=r"validation\.parquet: column 'target_cyrusd_60' is missing"):
        volume.unpack(v5_dataset(tmp_path / "raw", tables, FEATURES), targets=[CYRUS])


def test_find_datasets_have_the_same_further_targets(volume: Volume, raw: RawDataset) -> None:
    alone = volume.unpack(raw).dataset
    several = volume.unpack(raw, targets=[CYRUS]).dataset
    common: dict[str, Any] = {"source": "practice", "version": "latest", "feature_set": "small", "target": None}

    def found(*targets: str) -> list[Dataset]:
        return find_datasets(volume.data, **common, every_nth_era=1, targets=targets)

    assert found() == [alone]
    assert found(CYRUS) == [several]
    assert found("target_ender_20") == []


@pytest.fixture
def archive(tmp_path: Path) -> RawDataset:
    header = ("id", "era", "data_type", "feature1", "target_bernie", "target_jordan")
    training = [[f"n{row}", f"era{row // 4 + 1}", "train", "0.5", str(row % 2), str(row // 2 % 2)] for row in range(12)]
    tournament = [["v1", "era9", "validation", "0.5", "1", ""], ["l1", "eraX", "live", "0.5", "", ""]]
    return classic_dataset(tmp_path / "raw", csv_table(training, header), csv_table(tournament, header))


def test_further_targets_of_an_archive_are_columns(volume: Volume, archive: RawDataset) -> None:
    dataset = volume.unpack(archive, targets=["target_jordan"]).dataset
    assert (dataset.target, dataset.further_targets) == ("target_bernie", ("target_jordan",))
    table = pq.read_table(volume.training)
    assert table.column_names[-2:] == ["target", "target_jordan"]
    assert table["target_jordan"].to_pylist() == [row // 2 % 2 for row in range(12)]
    assert np.isnan(pq.read_table(volume.validation)["target_jordan"].to_numpy()).all()
    with pytest.raises(NotFoundError, match="'target_elizabeth' does not exist: choose one of target_bernie, target_j"):
        volume.unpack(archive, targets=["target_elizabeth"])


@pytest.mark.parametrize("table_format", ["csv", "parquet"])
def test_tables_of_images_of_2018_have_the_main_target_only(
    volume: Volume, archive: RawDataset, table_format: str
) -> None:
    dataset = volume.unpack(archive, targets=["target_jordan"]).dataset
    columns = ["id", "era", "data_type", "feature1", "target"]
    assert write_training_csv(dataset.layout).read_text().splitlines()[0] == ",".join(columns)
    path = write_tournament(dataset, volume.run, table_format)
    read: Callable[..., list[str]] = {
        "csv": lambda: path.read_text().splitlines()[0].split(","),
        "parquet": lambda: pq.read_table(path).column_names,
    }[table_format]
    assert read() == columns
