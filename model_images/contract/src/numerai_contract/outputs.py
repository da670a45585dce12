"""Outputs that are either complete or absent.

A file is written beside its path, flushed to disk and renamed; its manifest is written last. A valid manifest proves
that the file is complete: a reader needs no other sign that the writer finished. A file without a manifest is not an
output.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import time
import uuid
from typing import TYPE_CHECKING, Any

from numerai_contract import heartbeat
from numerai_contract.exits import BadDataError, BadParameterError, TryAgainError, transient_os_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MANIFEST_SUFFIX = ".manifest.json"
_PART_SUFFIX = ".part"
# seconds without a write after which a part belongs to a container that was killed
_STALE_PART_SECONDS = 3_600.0


def manifest_path(path: Path) -> Path:
    """Return the path of the manifest of `path`: beside it, ``<file>.manifest.json``."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file so that its path holds the old content or the new, never a part of it.

    Parameters
    ----------
    path
        The path of the file. Missing parent directories are created.

    Yields
    ------
    pathlib.Path
        An empty file beside the path, to be written by the caller. When the block succeeds, the file is renamed to the
        path; when it raises, the file is removed and the path is unchanged.

    Raises
    ------
    TryAgainError
        When the disk is full or has an error.
    BadParameterError
        When the directory may not be written to.
    """
    # unique, since an earlier attempt may still be running beside this one
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_PART_SUFFIX}")
    heartbeat.report_temporary_file(part)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale_parts(path)
        # not tempfile, whose files only their owner may read: the reader is Airflow, under another uid
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        flush(part)
        part.replace(path)
        flush(path.parent)
    except OSError as error:
        raise _to_write_error(error, path) from error
    finally:
        # a volume that refuses the removal has raised its error already
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        heartbeat.report_file_removed(part)


@contextlib.contextmanager
def output(path: Path, *, rows: int | None, columns: Sequence[str], inputs: str | None) -> Iterator[Path]:
    """Write an output and its manifest.

    Parameters
    ----------
    path
        The output's path.
    rows, columns
        The size of a table without its header, and its columns in order; None and empty for other files.
    inputs
        The hash of the output's inputs (``INPUTS``), None when the run gave none.

    Yields
    ------
    pathlib.Path
        As `atomic_write` does.
    """
    with atomic_write(path) as part:
        yield part
        # flushed before the old manifest is removed: a full disk must leave the old file valid
        flush(part)
        digest, size = sha256_of(part)
        # removed before the rename: an old manifest must never lie beside new content
        manifest_path(path).unlink(missing_ok=True)
    manifest = {
        "file": path.name,
        "sha256": digest,
        "bytes": size,
        "rows": rows,
        "columns": list(columns),
        "inputs": inputs,
    }
    with atomic_write(manifest_path(path)) as part:
        part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def rerun_hint(task: str) -> str:
    """Return the remedy for a file that a task must produce again."""
    return f"Clear the task `{task}` and run it again."


def verify(path: Path, producer: str = "unzip") -> bool:
    """Verify a file against its manifest.

    Parameters
    ----------
    path
        The file.
    producer
        The task that produces it, for messages.

    Returns
    -------
    bool
        Whether the file has a manifest.

    Raises
    ------
    BadDataError
        When file and manifest differ, or the manifest cannot be read.
    """
    manifest = manifest_path(path)
    try:
        recorded: Any = json.loads(manifest.read_text(encoding="utf-8"))
        size, digest = int(recorded["bytes"]), str(recorded["sha256"])
    except FileNotFoundError:
        return False
    except (ValueError, KeyError, TypeError, ArithmeticError, RecursionError) as error:
        message = f"{manifest.name}: not a manifest ({error!r}). {rerun_hint(producer)}"
        raise BadDataError(message) from error
    # the size first: it costs nothing and detects most truncated files
    if path.stat().st_size != size or sha256_of(path)[0] != digest:
        raise BadDataError(
            f"{path.name}: its content differs from its manifest {manifest.name}; it was truncated or changed "
            f"after it was written. {rerun_hint(producer)}"
        )
    return True


def is_finished(path: Path, inputs: str | None) -> bool:
    """Check whether an output is complete and was made from these inputs, so that it need not be produced again."""
    try:
        recorded = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        return path.is_file() and recorded.get("inputs") == inputs and verify(path)
    except (OSError, ValueError, AttributeError, RecursionError, BadDataError):
        return False


def check_writable(path: Path, name: str) -> None:
    """Check that `path`, the value of the parameter `name`, can be written, before hours of work.

    Raises
    ------
    BadParameterError
        When the path is a directory, or its directory may not be written to.
    """
    if path.is_dir():
        raise BadParameterError(f"{name} is {str(path)!r}, which is a directory: it must name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _to_write_error(error, path) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _permission_error(path)


def check_directory(directory: Path, name: str) -> None:
    """Check that files can be created in `directory`, the value of the parameter `name`.

    Raises
    ------
    BadParameterError
        When it may not be written to, or does not exist.
    """
    if not os.access(directory, os.W_OK | os.X_OK):
        raise BadParameterError(
            f"{name} is {str(directory)!r}, which may not be written to by uid {os.getuid()}. "
            "Mount it writable, and grant that user write permission."
        )


def sha256_of(path: Path) -> tuple[str, int]:
    """Compute the SHA-256 of a file in hexadecimal, and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def flush(path: Path) -> None:
    """Flush a file's content, or a directory's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # some network and desktop file systems cannot flush a directory; the rename is valid without it
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove_stale_parts(path: Path) -> None:
    now = time.time()
    for part in path.parent.glob(f".{path.name}.*{_PART_SUFFIX}"):
        with contextlib.suppress(OSError):
            if now - part.stat().st_mtime > _STALE_PART_SECONDS:
                part.unlink()


def _to_write_error(error: OSError, path: Path) -> Exception:
    """Add the path and the remedy to an error that occurred while writing `path`."""
    condition = transient_os_error(error)
    if condition is not None:
        return TryAgainError(f"{path}: {condition}, nothing was written. Make room there, then run the task again.")
    return _permission_error(path) if isinstance(error, PermissionError) or error.errno == errno.EROFS else error


def _permission_error(path: Path) -> BadParameterError:
    return BadParameterError(
        f"{path}: its directory may not be written to by uid {os.getuid()}. "
        "Mount it writable, and grant that user write permission."
    )
