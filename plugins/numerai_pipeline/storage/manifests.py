"""Manifests: the checksum files of finished outputs.

Each output ``x`` has ``x.manifest.json`` beside it with its SHA-256, size, rows and columns, written last. The pipeline
ignores an output without a valid manifest. The model images write the same format (``docs/reference/contract.md``) with
separate code.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".manifest.json"


@dataclass(frozen=True)
class Manifest:
    """Describes a finished file.

    Attributes
    ----------
    file : str
        Name of the file, without its folder.
    sha256 : str
        Hexadecimal digest of its content.
    bytes : int
        Its size.
    rows : int or None
        Rows of a table, without the header; None for other files.
    columns : list of str
        Columns of a table, in order.
    inputs : str or None
        Hash of everything that the file was made from (inputs, image, parameters), as its task received it.
    about : dict
        Further values of the writer, such as the address or the version of a download.
    """

    file: str
    sha256: str
    bytes: int
    rows: int | None = None
    columns: list[str] = field(default_factory=list)
    inputs: str | None = None
    about: dict[str, Any] = field(default_factory=dict)


def manifest_path(path: Path) -> Path:
    """Return the path of the manifest of ``path``."""
    return path.with_name(path.name + SUFFIX)


def file_sha256(path: Path) -> str:
    """Compute the SHA-256 of a file, as 64 hexadecimal digits, in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path``, and rename it to ``path`` when the block succeeds.

    A reader of ``path`` sees the old content or the new one, never a part. A failed block removes its temporary file;
    the temporary files of killed processes are removed as well. Several processes may write the same path at the same
    time: each holds a file lock on its temporary file, which ends with the process.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(path)
    handle, temporary = _locked_temporary(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _locked_temporary(path: Path) -> tuple[int, Path]:
    """Create a locked temporary file; return its open handle and its path."""
    while True:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        if os.fstat(handle).st_nlink:
            return handle, Path(name)
        os.close(handle)  # another process removed the file before it was locked


def _remove_abandoned(path: Path) -> None:
    """Remove the temporary files of a path on which no running process has a lock."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.*.part"):
        with contextlib.suppress(OSError), leftover.open("rb") as file:  # gone, locked, or without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftover.unlink()


def write_manifest(
    path: Path,
    *,
    rows: int | None = None,
    columns: list[str] | None = None,
    inputs: str | None = None,
    about: dict[str, Any] | None = None,
) -> Manifest:
    """Write the manifest of the finished file ``path`` beside it and return it."""
    manifest = Manifest(path.name, file_sha256(path), path.stat().st_size, rows, columns or [], inputs, about or {})
    with atomic_path(manifest_path(path)) as temporary:
        temporary.write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    return manifest


def read_manifest(path: Path) -> Manifest | None:
    """Read the manifest of ``path``; None if it does not exist or is not a manifest."""
    try:
        content = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        manifest = Manifest(**content)
    except (FileNotFoundError, ValueError, TypeError, RecursionError):
        return None
    whole = (
        isinstance(manifest.sha256, str)
        and type(manifest.bytes) is int
        and isinstance(manifest.rows, int | None)
        and isinstance(manifest.columns, list)
        and isinstance(manifest.inputs, str | None)
        and isinstance(manifest.about, dict)
    )
    return manifest if whole else None


def verified_manifest(path: Path, *, inputs: str | None = None) -> Manifest | None:
    """Return the manifest of ``path`` if the file matches it, else None.

    Parameters
    ----------
    path : Path
        The file.
    inputs : str, optional
        When given, the manifest must also have this hash of the inputs.
    """
    manifest = read_manifest(path)
    if manifest is None or not path.is_file() or path.stat().st_size != manifest.bytes:
        return None
    if inputs is not None and manifest.inputs != inputs:
        return None
    return manifest if file_sha256(path) == manifest.sha256 else None


def require_whole(path: Path, made_by: str) -> Manifest:
    """Return the manifest of ``path``, which must match the file.

    Parameters
    ----------
    path : Path
        The file.
    made_by : str
        The task to clear otherwise, or several.

    Raises
    ------
    BadInputError
        When there is no manifest, or the file does not match it, such as after a flipped byte.
    """
    manifest = verified_manifest(path)
    if manifest is not None:
        return manifest
    if read_manifest(path) is None or not path.is_file():
        msg = f"{path}: missing or unfinished: clear {made_by} and run it again"
        raise BadInputError(msg)
    msg = (
        f"{path}: its content does not match its manifest: it was truncated or changed after it was written; clear"
        f" {made_by} and run it again"
    )
    raise BadInputError(msg)


def discard(path: Path) -> None:
    """Remove a file and its manifest, the manifest first, so that a half-removed file never looks finished."""
    manifest_path(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)
