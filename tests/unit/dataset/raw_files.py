"""Makes raw datasets of both layouts, whole or broken on purpose."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.storage.manifests import file_sha256

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

TRAINING = "numerai_training_data.csv"
TOURNAMENT = "numerai_tournament_data.csv"
FEATURES = ("feature1", "feature2", "feature3")


def csv_row(identifier: str, era: str, kind: str, target: str, features: int = 3) -> list[str]:
    """Make one row of the classic layout."""
    return [identifier, era, kind, *(f"0.{number}25" for number in range(1, features + 1)), target]


def csv_table(
    rows: Sequence[Sequence[str]], header: Sequence[str] = ("id", "era", "data_type", *FEATURES, "target")
) -> str:
    """Put a header and rows into CSV."""
    return "".join(",".join(line) + "\n" for line in (header, *rows))


def training_rows(eras: int = 6, rows_per_era: int = 4) -> list[list[str]]:
    """Make training rows of both classes in every era."""
    return [
        csv_row(f"n{era:03d}{row:03d}", f"era{era}", "train", str(row % 2))
        for era in range(1, eras + 1)
        for row in range(rows_per_era)
    ]


def tournament_rows() -> list[list[str]]:
    """Make validation, test and live rows."""
    return [
        csv_row("v1", "era121", "validation", "0"),
        csv_row("v2", "era122", "validation", "1"),
        csv_row("t1", "eraX", "test", ""),
        csv_row("l1", "eraX", "live", ""),
    ]


def write_zip(path: Path, members: Mapping[str, bytes | str], compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """Write a zip with these members."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def patch_zip(path: Path, *, name: str | None = None, **values: int) -> Path:
    """Overwrite fields of the (first or named) member in both of its headers.

    Fields: ``flags``, ``method``, ``crc``, ``compressed``, ``size``.
    """
    # offsets in the local header and in the central directory's entry, and the field's form
    places = {"flags": (6, 8, "<H"), "method": (8, 10, "<H"), "crc": (14, 16, "<L")}
    places |= {"compressed": (18, 20, "<L"), "size": (22, 24, "<L")}
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(name) if name else archive.infolist()[0]
        start = archive.start_dir
    content = bytearray(path.read_bytes())
    entry = start
    while content[entry + 46 : entry + 46 + len(info.filename)] != info.filename.encode():
        entry = content.index(b"PK\x01\x02", entry + 4)
    for field, value in values.items():
        local, central, form = places[field]
        struct.pack_into(form, content, info.header_offset + local, value)
        struct.pack_into(form, content, entry + central, value)
    path.write_bytes(content)
    return path


def as_downloaded(raw: RawDataset) -> RawDataset:
    """Describe the same files as they are now, as if they had been downloaded so."""
    files = {
        role: RawFile(file.path, file_sha256(raw.path(role))) if raw.path(role).is_file() else file
        for role, file in raw.files.items()
    }
    return replace(raw, files=files)


def archive_dataset(path: Path) -> RawDataset:
    """Describe a zip as the download task does."""
    return as_downloaded(RawDataset("archive", "archive", "100", path.name, {"archive": RawFile(str(path), "0" * 64)}))


def classic_dataset(
    directory: Path,
    training: str | bytes | None = None,
    tournament: str | bytes | None = None,
    names: tuple[str, str] = (TRAINING, TOURNAMENT),
) -> RawDataset:
    """Write a zip of the classic layout; each file may be given whole."""
    directory.mkdir(parents=True, exist_ok=True)
    members = {
        names[0]: csv_table(training_rows()) if training is None else training,
        names[1]: csv_table(tournament_rows()) if tournament is None else tournament,
        "example_predictions.csv": "id,probability\nl1,0.5\n",
    }
    return archive_dataset(write_zip(directory / "numerai_dataset_100.zip", members))


V5_FEATURES = ("feature_b", "feature_a", "feature_c", "feature_unused")


def v5_table(
    kind: str, eras: Sequence[int], rows_per_era: int = 4, *, replaced: Mapping[str, Any] | None = None
) -> pa.Table:
    """Make a table as Numerai serves it: int8 features, several targets, ids last where pandas keeps its index.

    ``replaced`` gives columns in place of the usual ones; None leaves a column out.
    """
    rows = rows_per_era * len(eras)
    numbers = np.arange(rows)
    known = kind in {"train", "validation"}
    columns: dict[str, Any] = {
        "era": pa.array([f"{era:04d}" for era in eras for _ in range(rows_per_era)]),
        "data_type": pa.array([kind] * rows),
        **{name: pa.array((numbers + place) % 5, pa.int8()) for place, name in enumerate(V5_FEATURES)},
        "target": pa.array(numbers % 5 / 4, pa.float32(), mask=np.full(rows, not known)),
        "target_ender_20": pa.array((numbers + 1) % 5 / 4, pa.float32(), mask=np.full(rows, not known)),
        "id": pa.array([f"{kind}{number:05d}" for number in numbers]),
    }
    columns |= replaced or {}
    return pa.table({name: column for name, column in columns.items() if column is not None})


def v5_tables(**replaced: Mapping[str, Any]) -> dict[str, pa.Table]:
    """Make the three tables; ``train=…``, ``validation=…``, ``live=…`` replace columns of one."""
    eras = {"train": range(1, 9), "validation": range(9, 12), "live": range(12, 13)}
    return {kind: v5_table(kind, list(eras[kind]), replaced=replaced.get(kind)) for kind in eras}


def features_json() -> dict[str, Any]:
    """Make the content of ``features.json``."""
    sets = {"small": ["feature_a", "feature_b", "feature_c"], "all": sorted(V5_FEATURES)}
    return {"feature_sets": sets, "targets": ["target", "target_ender_20"]}


def v5_dataset(
    directory: Path, tables: Mapping[str, pa.Table] | None = None, features: Any = None, **writing: Any
) -> RawDataset:
    """Write a dataset of the v5 layout; tables and the features' description may be given."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "features.json").write_text(json.dumps(features if features is not None else features_json()))
    for kind, table in (tables or v5_tables()).items():
        pq.write_table(table, directory / f"{kind}.parquet", **writing)
    return v5_files(directory)


def v5_files(directory: Path) -> RawDataset:
    """Describe a dataset of the v5 layout that lies in a folder."""
    files = {role: RawFile(str(directory / f"{role}.parquet"), "0" * 64) for role in ("train", "validation", "live")}
    files["features"] = RawFile(str(directory / "features.json"), "0" * 64)
    return as_downloaded(RawDataset("v5", "practice", "100", "v5.3", files))
