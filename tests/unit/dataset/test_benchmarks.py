"""Published predictions of the run's rows, for comparison."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from numerai_pipeline.dataset import benchmarks as benchmarks_module
from numerai_pipeline.dataset.benchmarks import REFERENCES, Benchmarks, benchmark_model, write_benchmarks
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.storage.manifests import verified_manifest
from practice.model import META_MODEL, SeasonSize
from practice.rounds import FIRST_ROUND
from practice.season import write_season
from tests.unit.dataset.raw_files import as_downloaded
from tests.unit.dataset.unpacking import Volume
from tests.volumes import flip_a_byte

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
FILES = {
    "features": "features.json",
    "train": "train.parquet",
    "validation": "validation.parquet",
    "live": "live.parquet",
    "example_validation": "validation_example_preds.parquet",
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
def volume(raw: RawDataset, tmp_path: Path) -> Volume:
    volume = Volume(tmp_path / "data")
    volume.unpack(raw)
    return volume


def compare(raw: RawDataset, volume: Volume) -> Benchmarks:
    assert volume.dataset is not None
    return write_benchmarks(raw, volume.dataset, volume.data, volume.run)


def ids(path: Path) -> list[str]:
    found: list[str] = pq.read_table(path, columns=["id"])["id"].to_pylist()
    return found


def metadata(found: Benchmarks) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((found.directory / "references.json").read_text())
    return content


def test_write_benchmarks_writes_the_rows_of_the_validation_table(raw: RawDataset, volume: Volume) -> None:
    found = compare(raw, volume)
    assert found.available == ["example_predictions", "meta_model"]
    assert found.directory == volume.data.result("references", found.key)
    example, meta = (pq.read_table(found.file(name)) for name in found.available)
    assert example.column_names == ["id", "prediction"]
    assert example["id"].to_pylist() == ids(volume.validation)
    # its text columns are not used
    assert meta.column_names == ["id", META_MODEL]
    assert set(meta["id"].to_pylist()) <= set(ids(volume.validation))
    for name in found.available:
        manifest = verified_manifest(found.file(name))
        assert manifest is not None
        assert manifest.rows == pq.read_metadata(found.file(name)).num_rows
    assert metadata(found)["unavailable"] == {"benchmark_models": "dataset v5.3 has no such file"}
    names = {f"{name}.parquet{end}" for name in found.available for end in ("", ".manifest.json")}
    assert {path.name for path in found.directory.iterdir()} == names | {"references.json"}


def test_write_benchmarks_finished_result_is_found_without_raw_files(
    raw: RawDataset, volume: Volume, tmp_path: Path
) -> None:
    copied = with_tables(raw, tmp_path, meta_model=pq.read_table(raw.path("meta_model")))
    found = compare(copied, volume)
    before = {path: path.stat().st_mtime_ns for path in found.directory.iterdir()}
    copied.path("meta_model").unlink()
    # another run of another round
    assert compare(replace(copied, round="9999"), volume) == found
    assert {path: path.stat().st_mtime_ns for path in found.directory.iterdir()} == before


def test_write_benchmarks_changed_file_gets_a_result_of_its_own(
    raw: RawDataset, volume: Volume, tmp_path: Path
) -> None:
    found = compare(raw, volume)
    before = {path: path.read_bytes() for path in found.directory.iterdir()}
    table = pq.read_table(raw.path("meta_model"))
    other = compare(with_tables(raw, tmp_path, meta_model=table.slice(0, table.num_rows - 1)), volume)
    assert other.key != found.key
    assert {path: path.read_bytes() for path in found.directory.iterdir()} == before


def test_write_benchmarks_damaged_result_is_written_again(raw: RawDataset, volume: Volume) -> None:
    found = compare(raw, volume)
    whole = {path: path.read_bytes() for path in found.directory.iterdir()}
    flip_a_byte(found.file("meta_model"))
    assert compare(raw, volume) == found
    assert {path: path.read_bytes() for path in found.directory.iterdir()} == whole


def test_write_benchmarks_without_files_has_reasons_only(raw: RawDataset, volume: Volume) -> None:
    bare = {role: file for role, file in raw.files.items() if role in ("features", "train", "validation", "live")}
    found = compare(replace(raw, files=bare), volume)
    assert (found.available, list(found.unavailable)) == ([], list(REFERENCES))
    assert [path.name for path in found.directory.iterdir()] == ["references.json"]


def test_write_benchmarks_damaged_file_is_a_warning(
    raw: RawDataset, volume: Volume, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    damaged = tmp_path / "meta_model.parquet"
    damaged.write_bytes(b"PAR1 and no more")
    files = {**raw.files, "meta_model": RawFile(str(damaged), "2" * 64)}
    assert compare(replace(raw, files=files), volume).available == ["example_predictions"]
    assert f"meta_model: {damaged}: its content differs from the download" in caplog.text
    for _ in range(2):  # each run reports the reason, not only the first
        caplog.clear()
        assert compare(as_downloaded(replace(raw, files=files)), volume).available == ["example_predictions"]
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
    raw: RawDataset, volume: Volume, caplog: pytest.LogCaptureFixture
) -> None:
    files = {role: file for role, file in raw.files.items() if role != "meta_model"}
    reason = "meta_model.parquet: the server answered 404 Not Found"
    missing = replace(raw, files=files, unavailable={"meta_model": reason})
    benchmarks = compare(RawDataset.from_json(json.loads(json.dumps(missing.to_json()))), volume)
    assert benchmarks.available == ["example_predictions"]
    assert benchmarks.unavailable == {"meta_model": reason, "benchmark_models": "dataset v5.3 has no such file"}
    assert f"meta_model: {reason}" in caplog.text
    assert "benchmark_models" not in caplog.text


UNUSABLE: dict[str, tuple[Callable[[list[str]], pa.Table | bytes | None], str]] = {
    "nothing": (lambda _: b"", "damaged or not parquet"),
    "gone": (lambda _: None, "is gone"),
    "no rows": (lambda ids: pa.table({"id": ids[:0], "m": numbers(0)}), "has no rows"),
    "no id": (lambda ids: pa.table({"era": ids, "m": numbers(len(ids))}), "column 'id' is missing"),
    "id null": (lambda ids: pa.table({"id": pa.nulls(len(ids)), "m": numbers(len(ids))}), "'id' has the type null"),
    "id float": (lambda ids: pa.table({"id": numbers(len(ids)), "m": numbers(len(ids))}), "'id' has the type double"),
    "ids of other rows": (
        lambda ids: pa.table({"id": [f"x{row}" for row in ids], "m": numbers(len(ids))}),
        "none of its ids is in the validation table",
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
        "no value in any row of the validation table (columns: m)",
    ),
    "a column twice": (
        lambda ids: pa.Table.from_arrays([pa.array(ids), *[numbers(len(ids))] * 2], ["id", "m", "m"]),
        "more than once",
    ),
}


@pytest.mark.parametrize("role", ["example_validation", "meta_model", "benchmark_validation"])
@pytest.mark.parametrize("case", UNUSABLE)
def test_write_benchmarks_unusable_file_is_a_warning(
    raw: RawDataset, volume: Volume, tmp_path: Path, caplog: pytest.LogCaptureFixture, case: str, role: str
) -> None:
    make, reason = UNUSABLE[case]
    bare = {name: file for name, file in raw.files.items() if name not in REFERENCES.values()}
    found = with_tables(replace(raw, files=bare), tmp_path, **{role: make(ids(raw.path("validation")))})
    benchmarks = compare(found, volume)
    assert benchmarks.available == []
    assert reason in benchmarks.unavailable[role]
    assert f"{role}: {benchmarks.unavailable[role]}" in caplog.text
    assert [path.name for path in benchmarks.directory.iterdir()] == ["references.json"]


@pytest.mark.parametrize(
    "kind", [pa.float16(), pa.float32(), pa.decimal128(9, 4), pa.float64()], ids=["half", "float", "decimal", "double"]
)
def test_write_benchmarks_numbers_of_any_type_are_read(
    raw: RawDataset, volume: Volume, tmp_path: Path, kind: pa.DataType
) -> None:
    validation = ids(raw.path("validation"))
    values = pc.cast(numbers(len(validation)), kind, safe=False)
    table = pa.table(
        {"id": pa.array(validation).dictionary_encode(), "m": values, "empty": pa.nulls(len(validation)), "era": values}
    )
    found = compare(with_tables(raw, tmp_path, meta_model=table), volume)
    written = pq.read_table(found.file("meta_model"))
    assert written.column_names == ["id", "m"]
    wanted = set(ids(volume.validation))
    expected = [
        value for row, value in zip(validation, np.linspace(0.1, 0.9, len(validation)), strict=True) if row in wanted
    ]
    assert written["m"].to_pylist() == pytest.approx(expected, abs=1e-3)


def test_write_benchmarks_infinite_values_are_missing(raw: RawDataset, volume: Volume, tmp_path: Path) -> None:
    validation = ids(raw.path("validation"))
    values = [float("inf"), float("-inf"), float("nan"), *[0.5] * (len(validation) - 3)]
    found = compare(with_tables(raw, tmp_path, meta_model=pa.table({"id": validation, "m": values})), volume)
    assert pq.read_table(found.file("meta_model"))["m"].null_count == 3


def test_write_benchmarks_unreadable_file_is_read_again_by_the_next_run(
    raw: RawDataset, volume: Volume, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patched:
        patched.setattr(benchmarks_module, "ParquetSource", fail)
        unreadable = compare(raw, volume)
    assert unreadable.available == []
    assert "Input/output error" in unreadable.unavailable["meta_model"]
    assert compare(raw, volume).available == ["example_predictions", "meta_model"]


def test_write_benchmarks_walk_forward_adds_the_rows_of_its_week(raw: RawDataset, tmp_path: Path, season: Path) -> None:
    eras = [int(era) for era in pq.read_table(season / "validation.parquet")["era"].to_pylist()]
    # two weeks that share a fit
    first = max(eras) - max(eras) % 2 - 2
    volume = Volume(tmp_path / "data")
    keys = []
    for era in (first, first + 1):
        walked = replace(raw, era=era)
        dataset = volume.unpack(walked, target="target_ender_20", refit_every=2).dataset
        found = compare(walked, volume)
        assert ids(found.file("meta_model")) == ids(volume.validation) + ids(volume.live)
        keys.append((dataset.key, found.key))
    assert keys[0][0] == keys[1][0]
    assert keys[0][1] != keys[1][1]


@pytest.mark.parametrize(
    ("version", "days", "name"),
    [
        ("v5.3", 60, "v53_lgbm_ender60"),
        ("v5.3", 20, "v53_lgbm_ender20"),
        ("v5.10", 60, "v510_lgbm_ender60"),
        ("v6", 60, "v6_lgbm_ender60"),
        ("numerai_dataset.zip", 60, None),
    ],
)
def test_benchmark_model_is_that_of_the_version(version: str, days: int, name: str | None) -> None:
    assert benchmark_model(version, days) == name
