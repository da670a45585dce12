"""Tables for images that keep no model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.dataset.csv_export import write_tournament, write_training_csv
from numerai_pipeline.dataset.store import Dataset
from numerai_pipeline.storage.manifests import verified_manifest
from tests.unit.dataset.raw_files import v5_dataset, v5_table, v5_tables
from tests.unit.dataset.unpacking import DATASET_FILES, LIVE_FILES, Volume
from tests.volumes import flip_a_byte


@pytest.fixture
def volume(tmp_path: Path) -> Volume:
    """A dataset of int8 features and a live table with a missing value."""
    volume = Volume(tmp_path / "data")
    live = {"feature_a": pa.array([None, 1, 2, 3], pa.int8())}
    volume.unpack(v5_dataset(tmp_path / "raw", v5_tables(live=live)))
    return volume


@pytest.fixture
def dataset(volume: Volume) -> Dataset:
    assert volume.dataset is not None
    return volume.dataset


def test_training_csv_has_the_rows_of_the_table(volume: Volume, dataset: Dataset) -> None:
    path = write_training_csv(dataset.layout)
    assert path == dataset.layout.training_csv
    header, first, *others = path.read_text().splitlines()
    assert header == "id,era,data_type,feature_b,feature_a,feature_c,target"
    assert first == "train00000,0001,train,0,1,2,0"
    assert len(others) == 31
    assert verified_manifest(path)
    assert volume.files() == sorted([*DATASET_FILES, *LIVE_FILES, "training.csv", "training.csv.manifest.json"])


def test_training_csv_is_written_once(dataset: Dataset) -> None:
    before = write_training_csv(dataset.layout).stat().st_mtime_ns
    assert write_training_csv(dataset.layout).stat().st_mtime_ns == before
    flip_a_byte(dataset.layout.training_csv)
    assert verified_manifest(write_training_csv(dataset.layout))


def test_tournament_has_the_validation_and_live_rows(volume: Volume, dataset: Dataset) -> None:
    path = write_tournament(dataset, volume.run, "parquet")
    assert path == volume.run.tournament
    table = pq.read_table(path)
    tables = [pq.read_table(part) for part in (volume.validation, volume.live)]
    assert table["id"].to_pylist() == [row for part in tables for row in part["id"].to_pylist()]
    assert table["data_type"].to_pylist() == ["validation"] * 12 + ["live"] * 4
    # one column has one type, also where the tables differ
    assert (table["feature_a"].type, table["feature_b"].type) == (pa.float32(), pa.int8())
    assert np.isnan(table["feature_a"].to_numpy()).tolist() == [False] * 12 + [True] + [False] * 3
    assert np.isnan(table["target"].to_numpy()).tolist() == [False] * 12 + [True] * 4
    assert table.schema.metadata == tables[0].schema.metadata
    manifest = verified_manifest(path)
    assert manifest is not None
    assert (manifest.rows, manifest.columns) == (16, table.column_names)


def test_tournament_csv_has_gaps_where_values_are_missing(volume: Volume, dataset: Dataset) -> None:
    path = write_tournament(dataset, volume.run, "csv")
    assert path == volume.run.tournament_csv
    lines = path.read_text().splitlines()
    assert lines[0] == "id,era,data_type,feature_b,feature_a,feature_c,target"
    assert lines[1] == "validation00000,0009,validation,0,1,2,0"
    assert lines[13:15] == ["live00000,0012,live,0,,2,", "live00001,0012,live,1,1,3,"]
    assert not volume.run.tournament.exists()


def test_tournament_is_written_again_for_another_live_table(volume: Volume, dataset: Dataset, tmp_path: Path) -> None:
    path = write_tournament(dataset, volume.run, "parquet")
    before = path.stat().st_mtime_ns
    assert write_tournament(dataset, volume.run, "parquet").stat().st_mtime_ns == before
    volume.unpack(v5_dataset(tmp_path / "raw", {"live": v5_table("live", [13])}))
    write_tournament(dataset, volume.run, "parquet")
    assert pq.read_table(path)["era"].to_pylist()[-1] == "0013"


@pytest.mark.parametrize("part", ["training", "validation", "live"])
def test_csv_of_a_damaged_table_is_not_written(volume: Volume, dataset: Dataset, part: str) -> None:
    before = volume.files()
    flip_a_byte(getattr(volume, part))
    with pytest.raises(BadInputError, match=rf"{part}\.parquet: its content does not match its manifest.*`unzip`"):
        write_training_csv(dataset.layout) if part == "training" else write_tournament(dataset, volume.run, "csv")
    assert volume.files() == before
