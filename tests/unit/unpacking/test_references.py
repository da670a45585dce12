"""What models are measured against: the run's own rows of others' predictions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from numerai_pipeline.manifests import verified_manifest
from numerai_pipeline.raw_dataset import RawDataset, RawFile
from numerai_pipeline.run_layout import RunLayout
from numerai_pipeline.unpacking.dataset import unpack
from numerai_pipeline.unpacking.references import REFERENCES, lay_references
from practice.model import SeasonSize
from practice.rounds import FIRST_ROUND
from practice.season import META_MODEL, write_season
from tests.unit.unpacking.raw_files import as_downloaded
from tests.volumes import flip_a_byte

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
FILES = {
    "features": "features.json",
    "train": "train.parquet",
    "validation": "validation.parquet",
    "live": "live.parquet",
    "example_validation": "validation_example_preds.parquet",
    "example_live": "live_example_preds.parquet",
    "meta_model": "meta_model.parquet",
}
Lay = Callable[..., list[str]]


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("season")
    write_season(directory, SIZE)
    return directory


@pytest.fixture
def raw(season: Path) -> RawDataset:
    files = {role: RawFile(str(season / name), f"{role:0<64}") for role, name in FILES.items()}
    return as_downloaded(RawDataset("v5", "practice", str(FIRST_ROUND), "v5.3", files))


@pytest.fixture
def layout(raw: RawDataset, tmp_path: Path) -> RunLayout:
    layout = RunLayout(tmp_path / "run")
    unpack(raw, layout, feature_set="small", target=None, every_nth_era=1, inputs="hash")
    return layout


def ids(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path, columns=["id"])["id"].to_pylist()
    return found


def test_the_run_gets_those_of_its_own_rows(raw: RawDataset, layout: RunLayout, season: Path) -> None:
    assert lay_references(raw, layout) == ["example_predictions", "meta_model"]
    example, meta = (pq.read_table(layout.reference(name)) for name in ("example_predictions", "meta_model"))
    assert example.column_names == ["id", "prediction"]
    assert example["id"].to_pylist() == ids(layout.tournament)
    # the meta model knows nothing of live rows, and its words are left out
    assert meta.column_names == ["id", META_MODEL]
    assert set(meta["id"].to_pylist()) < set(ids(layout.tournament))
    original = pq.read_table(season / "meta_model.parquet")
    assert meta[META_MODEL].to_pylist() == original[META_MODEL].to_pylist()
    for name in ("example_predictions", "meta_model"):
        manifest = verified_manifest(layout.reference(name))
        assert manifest is not None
        assert manifest.rows == pq.read_metadata(layout.reference(name)).num_rows


def test_what_is_up_to_date_is_not_made_again(raw: RawDataset, layout: RunLayout, tmp_path: Path) -> None:
    lay_references(raw, layout)
    times = {name: layout.reference(name).stat().st_mtime_ns for name in ("example_predictions", "meta_model")}
    assert lay_references(raw, layout) == list(times)
    assert {name: layout.reference(name).stat().st_mtime_ns for name in times} == times
    other = tmp_path / "meta_model.parquet"
    pq.write_table(pq.read_table(raw.path("meta_model")), other, compression="none")
    newer = replace(raw, files={**raw.files, "meta_model": RawFile(str(other), "")})
    lay_references(as_downloaded(newer), layout)
    assert layout.reference("example_predictions").stat().st_mtime_ns == times["example_predictions"]
    assert layout.reference("meta_model").stat().st_mtime_ns > times["meta_model"]


def test_one_with_a_turned_byte_is_made_again_alone(raw: RawDataset, layout: RunLayout) -> None:
    there = lay_references(raw, layout)
    whole = {name: layout.reference(name).read_bytes() for name in there}
    times = {name: layout.reference(name).stat().st_mtime_ns for name in there}
    flip_a_byte(layout.reference("meta_model"))
    assert lay_references(raw, layout) == there
    assert {name: layout.reference(name).read_bytes() for name in there} == whole
    assert layout.reference("meta_model").stat().st_mtime_ns > times["meta_model"]
    assert layout.reference("example_predictions").stat().st_mtime_ns == times["example_predictions"]


def test_a_dataset_without_any_leaves_none_of_an_earlier_one(raw: RawDataset, layout: RunLayout) -> None:
    lay_references(raw, layout)
    bare = {role: file for role, file in raw.files.items() if role in ("features", "train", "validation", "live")}
    assert lay_references(replace(raw, files=bare), layout) == []
    assert not any(layout.reference(name).exists() for name in REFERENCES)


def test_a_damaged_one_is_left_out_and_stops_nothing(
    raw: RawDataset, layout: RunLayout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "meta_model.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    files = {**raw.files, "meta_model": RawFile(str(damaged), "2" * 64)}
    assert lay_references(replace(raw, files=files), layout) == ["example_predictions"]
    assert f"meta_model is left out: {damaged}: its content is not what was downloaded" in caplog.text
    assert lay_references(as_downloaded(replace(raw, files=files)), layout) == ["example_predictions"]
    assert "meta_model is left out: meta_model.parquet: the parquet file is damaged" in caplog.text


def test_a_walk_forward_run_gets_those_of_its_week(raw: RawDataset, tmp_path: Path, season: Path) -> None:
    eras = [int(era) for era in pq.read_table(season / "validation.parquet")["era"].to_pylist()]
    layout = RunLayout(tmp_path / "walked")
    walked = replace(raw, era=max(eras) - 1)
    unpack(walked, layout, feature_set="small", target="target_ender_20", every_nth_era=1, inputs="hash")
    lay_references(walked, layout)
    assert sorted(ids(layout.reference("meta_model"))) == sorted(ids(layout.tournament))
