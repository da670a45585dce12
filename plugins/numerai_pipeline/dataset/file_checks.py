"""Checks of downloaded files: a file gets its final name only if its content matches its file type."""

from __future__ import annotations

import errno
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from numerai_pipeline.core.errors import ProtocolError

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    RuntimeError,
    ValueError,
    EOFError,
    LookupError,
    ArithmeticError,
    MemoryError,
)
"""Exceptions of zipfile for damaged or forged bytes; forged offsets also cause OSError."""
READABLE_COMPRESSIONS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED})
"""Without bzip2 and LZMA: zipfile expands them without a memory limit for one step."""
_SYSTEM_FILES = frozenset(
    {
        # macOS; the name of a folder's icon ends with a carriage return
        *("__macosx", ".ds_store", ".appledouble", ".apdisk", ".localized", "icon\r"),
        *(".spotlight-v100", ".trashes", ".fseventsd", ".temporaryitems", ".documentrevisions-v100"),
        # Windows
        *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
        # file servers and desktops of Linux
        *("@eadir", ".directory", "lost+found"),
    }
)
"""Files and folders that operating systems add, in lower case."""
_APPLE_DOUBLE = "._"
_BLOCK = 2**20


class ContentError(ProtocolError):
    """The content of a file does not match its type: not a Parquet file, not JSON, a broken zip."""


@dataclass(frozen=True)
class Content:
    """Result of a check: rows and columns of a table, empty for other files."""

    rows: int | None = None
    columns: list[str] = field(default_factory=list)


Check = Callable[[Path], Content]
"""Reads a finished file and raises :class:`ContentError` if its content does not match its type."""


def check_parquet(path: Path) -> Content:
    """Read the footer of a Parquet file, which is at its end and names all row groups and columns."""
    import pyarrow as pa  # heavy, and needed by tasks only
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            return Content(file.metadata.num_rows, file.schema_arrow.names)
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # an error of the operating system, not of the content
        msg = f"not a Parquet file ({error})"
        raise ContentError(msg) from None


def check_json(path: Path) -> Content:
    """Parse a JSON file."""
    try:
        json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        msg = f"not JSON ({error})"
        raise ContentError(msg) from None
    return Content()


def check_zip(path: Path) -> Content:
    """Read every member of a zip that ``unzip`` would read, and compare its CRC."""
    try:
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.compress_type in READABLE_COMPRESSIONS and not is_system_file(info.orig_filename):
                    _read_through(archive, info)
    except (*ZIP_ERRORS, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (None, errno.EINVAL):
            raise  # an error of the operating system, not of the content
        msg = f"not a readable zip ({error or type(error).__name__})"
        raise ContentError(msg) from None
    return Content()


def is_system_file(name: str) -> bool:
    """Check whether a zip's member is a file of an operating system, such as ``__MACOSX/._x``, and not data.

    Parameters
    ----------
    name : str
        The member's name as the zip has it, with slashes or backslashes between folders. A folder of such a name makes
        everything in it a file of the operating system.
    """
    parts = re.split(r"[/\\]", name)
    return any(part.startswith(_APPLE_DOUBLE) or part.casefold() in _SYSTEM_FILES for part in parts)


def _read_through(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
    try:
        with archive.open(info) as member:
            while member.read(_BLOCK):
                pass
    except zipfile.BadZipFile:
        msg = f"the zip's member {info.filename!r} is damaged (its CRC does not match)"
        raise ContentError(msg) from None


def accept_any(_path: Path) -> Content:
    """Accept any content, for file types without a check, such as CSV."""
    return Content()


def check_for(name: str) -> Check:
    """Return the check for a file's name."""
    checks: dict[str, Check] = {".parquet": check_parquet, ".json": check_json, ".zip": check_zip}
    return checks.get(Path(name).suffix, accept_any)
