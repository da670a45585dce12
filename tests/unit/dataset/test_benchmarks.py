"""Published predictions of the run's rows, for comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag import tasks
from numerai_pipeline.dataset import benchmarks as benchmarks_module
from numerai_pipeline.dataset.benchmarks import REFERENCES, ROLES, write_benchmarks
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.dataset.unpack import unpack
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from practice.model import SeasonSize
from practice.rounds import FIRST_ROUND
from practice.season import META_MODEL, write_season
from tests.unit.dataset.raw_files import as_downloaded
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


def test_write_benchmarks_writes_the_rows_of_the_run(raw: RawDataset, layout: RunLayout, season: Path) -> None:
    assert write_benchmarks(raw, layout).available == ["example_predictions", "meta_model"]
    example, meta = (pq.read_table(layout.reference(name)) for name in ("example_predictions", "meta_model"))
    assert example.column_names == ["id", "prediction"]
    assert example["id"].to_pylist() == ids(layout.tournament)
    # the meta model has no live rows, and its text columns are not used
    assert meta.column_names == ["id", META_MODEL]
    assert set(meta["id"].to_pylist()) < set(ids(layout.tournament))
    original = pq.read_table(season / "meta_model.parquet")
    assert meta[META_MODEL].to_pylist() == original[META_MODEL].to_pylist()
    for name in ("example_predictions", "meta_model"):
        manifest = verified_manifest(layout.reference(name))
        assert manifest is not None
        assert manifest.rows == pq.read_metadata(layout.reference(name)).num_rows


def test_write_benchmarks_up_to_date_files_are_not_rewritten(
    raw: RawDataset, layout: RunLayout, tmp_path: Path
) -> None:
    write_benchmarks(raw, layout)
    times = {name: layout.reference(name).stat().st_mtime_ns for name in ("example_predictions", "meta_model")}
    assert write_benchmarks(raw, layout).available == list(times)
    assert {name: layout.reference(name).stat().st_mtime_ns for name in times} == times
    other = tmp_path / "meta_model.parquet"
    pq.write_table(pq.read_table(raw.path("meta_model")), other, compression="none")
    newer = replace(raw, files={**raw.files, "meta_model": RawFile(str(other), "")})
    write_benchmarks(as_downloaded(newer), layout)
    assert layout.reference("example_predictions").stat().st_mtime_ns == times["example_predictions"]
    assert layout.reference("meta_model").stat().st_mtime_ns > times["meta_model"]


def test_write_benchmarks_damaged_output_is_rewritten(raw: RawDataset, layout: RunLayout) -> None:
    there = write_benchmarks(raw, layout).available
    whole = {name: layout.reference(name).read_bytes() for name in there}
    times = {name: layout.reference(name).stat().st_mtime_ns for name in there}
    flip_a_byte(layout.reference("meta_model"))
    assert write_benchmarks(raw, layout).available == there
    assert {name: layout.reference(name).read_bytes() for name in there} == whole
    assert layout.reference("meta_model").stat().st_mtime_ns > times["meta_model"]
    assert layout.reference("example_predictions").stat().st_mtime_ns == times["example_predictions"]


def test_write_benchmarks_without_files_removes_earlier_outputs(raw: RawDataset, layout: RunLayout) -> None:
    write_benchmarks(raw, layout)
    bare = {role: file for role, file in raw.files.items() if role in ("features", "train", "validation", "live")}
    assert write_benchmarks(replace(raw, files=bare), layout).available == []
    assert not any(layout.reference(name).exists() for name in REFERENCES)


def test_write_benchmarks_damaged_file_is_a_warning(
    raw: RawDataset, layout: RunLayout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "meta_model.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    files = {**raw.files, "meta_model": RawFile(str(damaged), "2" * 64)}
    assert write_benchmarks(replace(raw, files=files), layout).available == ["example_predictions"]
    assert f"meta_model: {damaged}: its content differs from the download" in caplog.text
    assert write_benchmarks(as_downloaded(replace(raw, files=files)), layout).available == ["example_predictions"]
    assert "meta_model: meta_model.parquet: the parquet file is damaged" in caplog.text


def with_tables(raw: RawDataset, directory: Path, **tables: pa.Table | bytes | None) -> RawDataset:
    """Replace the files of roles by tables or bytes; None leaves the file away that the dataset names."""
    files = dict(raw.files)
    for role, content in tables.items():
        path = directory / f"{role}.parquet"
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content is not None:
            pq.write_table(content, path)
        files[role] = RawFile(str(path), "0" * 64)
    return as_downloaded(replace(raw, files=files))


def numbers(count: int, kind: pa.DataType | None = None) -> pa.Array:
    return pa.array(np.linspace(0.1, 0.9, count)).cast(kind or pa.float64())


def test_write_benchmarks_download_that_failed_is_reported(
    raw: RawDataset, layout: RunLayout, caplog: pytest.LogCaptureFixture
) -> None:
    files = {role: file for role, file in raw.files.items() if role != "meta_model"}
    reason = "meta_model.parquet: the server answered 404 Not Found"
    missing = replace(raw, files=files, unavailable={"meta_model": reason})
    benchmarks = write_benchmarks(RawDataset.from_json(json.loads(json.dumps(missing.to_json()))), layout)
    assert benchmarks.available == ["example_predictions"]
    assert benchmarks.unavailable == {"meta_model": reason, "benchmark_models": "dataset v5.3 has no such file"}
    assert f"meta_model: {reason}" in caplog.text
    assert "benchmark_models" not in caplog.text


def test_write_benchmarks_one_of_two_files_is_used(raw: RawDataset, layout: RunLayout, tmp_path: Path) -> None:
    damaged = with_tables(raw, tmp_path, example_live=b"PAR1 and no more")
    for _ in range(2):  # the reason is reported by each run, not only by the first
        benchmarks = write_benchmarks(damaged, layout)
        assert benchmarks.available == ["example_predictions", "meta_model"]
        assert "example_live.parquet: the parquet file is damaged" in benchmarks.unavailable["example_live"]
        assert set(ids(layout.reference("example_predictions"))) == set(ids(raw.path("validation")))
    assert "example_live" not in write_benchmarks(raw, layout).unavailable
    assert ids(layout.reference("example_predictions")) == ids(layout.tournament)


def test_write_benchmarks_column_of_one_file_is_kept_and_reported(
    raw: RawDataset, layout: RunLayout, tmp_path: Path
) -> None:
    validation, live = ids(raw.path("validation")), ids(raw.path("live"))
    changed = with_tables(
        raw,
        tmp_path,
        benchmark_validation=pa.table({"id": validation, "v5_lgbm": numbers(len(validation))}),
        benchmark_live=pa.table({"id": live, "v5_lgbm": numbers(len(live)), "v6_new": numbers(len(live))}),
    )
    for _ in range(2):
        benchmarks = write_benchmarks(changed, layout)
        assert "benchmark_models" in benchmarks.available
        assert benchmarks.unavailable == {
            "benchmark_validation": "benchmark_validation.parquet: no values of v6_new, which the other file has"
        }
    table = pq.read_table(layout.reference("benchmark_models"))
    assert table.column_names == ["id", "v5_lgbm", "v6_new"]
    assert table["v6_new"].null_count == len(validation)


UNUSABLE: dict[str, tuple[Callable[[list[str]], pa.Table | bytes | None], str]] = {
    "nothing": (lambda _: b"", "damaged or not parquet"),
    "gone": (lambda _: None, "is gone"),
    "no rows": (lambda ids: pa.table({"id": ids[:0], "m": numbers(0)}), "has no rows"),
    "no id": (lambda ids: pa.table({"era": ids, "m": numbers(len(ids))}), "column 'id' is missing"),
    "id null": (lambda ids: pa.table({"id": pa.nulls(len(ids)), "m": numbers(len(ids))}), "'id' has the type null"),
    "id float": (lambda ids: pa.table({"id": numbers(len(ids)), "m": numbers(len(ids))}), "'id' has the type double"),
    "ids of other rows": (
        lambda ids: pa.table({"id": [f"x{row}" for row in ids], "m": numbers(len(ids))}),
        "none of its ids is in the run's tournament table",
    ),
    "an id twice": (
        lambda ids: pa.table({"id": [*ids, ids[3]], "m": numbers(len(ids) + 1)}),
        "is there more than once, 1 such ids in all",
    ),
    "text": (lambda ids: pa.table({"id": ids, "m": ids}), "no column of numbers (found: id (string), m (string))"),
    "keys only": (lambda ids: pa.table({"id": ids, "era": numbers(len(ids))}), "no column of numbers"),
    "column of type null": (lambda ids: pa.table({"id": ids, "m": pa.nulls(len(ids))}), "no value in any"),
    "missing numbers": (
        lambda ids: pa.table({"id": ids, "m": pa.array([np.nan, np.inf, None] * (len(ids) // 3))}),
        "no value in any of the run's rows (columns: m)",
    ),
    "a column twice": (
        lambda ids: pa.Table.from_arrays([pa.array(ids), *[numbers(len(ids))] * 2], ["id", "m", "m"]),
        "more than once",
    ),
}


@pytest.mark.parametrize("role", ["example_validation", "meta_model", "benchmark_validation"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_write_benchmarks_unusable_file_is_a_warning(
    raw: RawDataset, layout: RunLayout, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str, role: str
) -> None:
    make, reason = UNUSABLE[case]
    bare = {name: file for name, file in raw.files.items() if name not in ROLES}
    found = with_tables(replace(raw, files=bare), tmp_path, **{role: make(ids(raw.path("validation")))})
    benchmarks = write_benchmarks(found, layout)
    assert benchmarks.available == []
    assert reason in benchmarks.unavailable[role]
    assert f"{role}: {benchmarks.unavailable[role]}" in caplog.text
    assert not any(layout.reference(name).exists() for name in REFERENCES)


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.decimal128(9, 4), pa.float64()], ids=["half", "float", "decimal", "double"]
)
def test_write_benchmarks_numbers_of_any_type_are_read(
    raw: RawDataset, layout: RunLayout, tmp_path: Path, kind: pa.DataType
) -> None:
    validation = ids(raw.path("validation"))
    values = pc.cast(numbers(len(validation)), kind, safe=False)
    table = pa.table(
        {"id": pa.array(validation).dictionary_encode(), "m": values, "empty": pa.nulls(len(validation)), "era": values}
    )
    assert "meta_model" in write_benchmarks(with_tables(raw, tmp_path, meta_model=table), layout).available
    written = pq.read_table(layout.reference("meta_model"))
    assert written.column_names == ["id", "m"]
    assert written["m"].to_pylist() == pytest.approx(np.linspace(0.1, 0.9, len(validation)), abs=1e-3)


def test_write_benchmarks_infinite_values_are_missing(raw: RawDataset, layout: RunLayout, tmp_path: Path) -> None:
    validation = ids(raw.path("validation"))
    values = [float("inf"), float("-inf"), float("nan"), *[0.5] * (len(validation) - 3)]
    write_benchmarks(with_tables(raw, tmp_path, meta_model=pa.table({"id": validation, "m": values})), layout)
    assert pq.read_table(layout.reference("meta_model"))["m"].null_count == 3


def test_write_benchmarks_unreadable_file_is_a_warning(
    raw: RawDataset, layout: RunLayout, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(benchmarks_module, "ParquetSource", fail)
    benchmarks = write_benchmarks(raw, layout)
    assert benchmarks.available == []
    assert "Input/output error" in benchmarks.unavailable["meta_model"]


def test_unzip_writes_unavailable_comparisons_into_the_metadata(
    raw: RawDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_DATA_DIR", str(tmp_path))
    load_settings.cache_clear()
    damaged = with_tables(raw, tmp_path, meta_model=b"PAR1")
    downloaded = replace(damaged, unavailable={"benchmark_live": "live_benchmark_models.parquet: 403 Forbidden"})
    ti: Any = SimpleNamespace(xcom_pull=lambda **_: downloaded.to_json(), dag_id="dag", run_id="run")
    result = tasks.unzip({"source": "practice"}, ti, {})
    metadata = json.loads(RunLayout(tmp_path / result["directory"]).run_metadata.read_text())
    assert metadata["references"] == ["example_predictions"]
    assert set(metadata["unavailable_comparisons"]) == {"meta_model", "benchmark_live"}
    assert metadata["unavailable_comparisons"]["benchmark_live"] == "live_benchmark_models.parquet: 403 Forbidden"


def test_write_benchmarks_walk_forward_writes_the_rows_of_its_week(
    raw: RawDataset, tmp_path: Path, season: Path
) -> None:
    eras = [int(era) for era in pq.read_table(season / "validation.parquet")["era"].to_pylist()]
    layout = RunLayout(tmp_path / "walked")
    walked = replace(raw, era=max(eras) - 1)
    unpack(walked, layout, feature_set="small", target="target_ender_20", every_nth_era=1, inputs="hash")
    write_benchmarks(walked, layout)
    assert sorted(ids(layout.reference("meta_model"))) == sorted(ids(layout.tournament))
