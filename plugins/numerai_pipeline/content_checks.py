"""What a downloaded file must prove before it gets its name: that it is what its name promises."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from numerai_pipeline.errors import ProtocolError


class ContentError(ProtocolError):
    """A file is not what its name promises: no Parquet file, no JSON, a broken zip."""


@dataclass(frozen=True)
class Content:
    """What a check found in a file: rows and columns of a table, nothing for anything else."""

    rows: int | None = None
    columns: list[str] = field(default_factory=list)


Check = Callable[[Path], Content]
"""Reads a finished file and raises :class:`ContentError` when it is not what it should be."""


def check_parquet(path: Path) -> Content:
    """Read the footer of a Parquet file: it stands at the end and names every row group and column."""
    import pyarrow as pa  # heavy, and needed by tasks only
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return Content(file.metadata.num_rows, file.schema_arrow.names)
    except (pa.ArrowException, OSError) as error:
        msg = f"not a Parquet file ({error})"
        raise ContentError(msg) from None


def check_json(path: Path) -> Content:
    """Parse a JSON file."""
    try:
        json.loads(path.read_bytes())
    except ValueError as error:
        msg = f"not JSON ({error})"
        raise ContentError(msg) from None
    return Content()


def check_zip(path: Path) -> Content:
    """Read every member of a zip and compare its CRC."""
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError) as error:
        msg = f"not a readable zip ({error})"
        raise ContentError(msg) from None
    if broken is not None:
        msg = f"the zip's member {broken!r} is damaged (its CRC does not match)"
        raise ContentError(msg)
    return Content()


def check_anything(_path: Path) -> Content:
    """Take any content: for files whose form nobody knows, such as CSV."""
    return Content()


def check_for(name: str) -> Check:
    """Choose the check that fits a file's name."""
    checks: dict[str, Check] = {".parquet": check_parquet, ".json": check_json, ".zip": check_zip}
    return checks.get(Path(name).suffix, check_anything)
