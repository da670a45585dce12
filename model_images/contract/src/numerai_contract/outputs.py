"""Outputs that are either whole or not there.

A file is written beside its place, flushed to disk and renamed; its manifest follows last. Whoever finds a manifest
that holds may trust the file: a reader needs no other sign that the writer finished. No manifest, no output.
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

from numerai_contract import pulse
from numerai_contract.exits import BadDataError, BadParameterError, TryAgainError, passing_trouble

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MANIFEST_SUFFIX = ".manifest.json"
_PART_SUFFIX = ".part"
# a part nobody has written to for so long was left by a container that was killed
_ABANDONED_AFTER = 3_600.0


def manifest_path(path: Path) -> Path:
    """Where the manifest of `path` is: beside it, ``<file>.manifest.json``."""
    return path.with_name(path.name + MANIFEST_SUFFIX)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Write a file so that its place holds the old content or the new, never a part of it.

    Parameters
    ----------
    path
        The place. Missing directories above it are made.

    Yields
    ------
    pathlib.Path
        An empty file beside the place, to be written by the caller. When the block ends well it takes the place;
        when it raises, it is removed and the place is untouched.

    Raises
    ------
    TryAgainError
        When the disk is full or in trouble.
    BadParameterError
        When the directory may not be written to.
    """
    # unique, since a try that was given up may still be running beside this one
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}{_PART_SUFFIX}")
    pulse.announce_part(part)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned_parts(path)
        # not tempfile, whose files only their owner may read: the reader is Airflow, under another uid
        os.close(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield part
        _flush(part)
        part.replace(path)
        _flush(path.parent)
    except OSError as error:
        raise _translated(error, path) from error
    finally:
        # a volume on which nothing can be removed has said what is wrong with it already
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        pulse.forget_part(part)


@contextlib.contextmanager
def output(path: Path, *, rows: int | None, columns: Sequence[str], inputs: str | None) -> Iterator[Path]:
    """Write an output and its manifest.

    Parameters
    ----------
    path
        The output's place.
    rows, columns
        The size of a table without its header, and its columns in order; None and nothing for what is not a table.
    inputs
        The hash of all that went into the output (``INPUTS``), None when the run gave none.

    Yields
    ------
    pathlib.Path
        As `replacing` does.
    """
    with replacing(path) as part:
        yield part
        # a disk that turns out full only now must not cost the old file its manifest
        _flush(part)
        digest, size = _digest(part)
        # before the new file is in place: an old manifest must never stand beside new content
        manifest_path(path).unlink(missing_ok=True)
    manifest = {
        "file": path.name,
        "sha256": digest,
        "bytes": size,
        "rows": rows,
        "columns": list(columns),
        "inputs": inputs,
    }
    with replacing(manifest_path(path)) as part:
        part.write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def rerun(task: str) -> str:
    """Say what to do about a file that a task must make anew."""
    return f"Clear the task `{task}` and run it again."


def verify(path: Path, made_by: str = "unzip") -> bool:
    """Hold a file against its manifest.

    Parameters
    ----------
    path
        The file.
    made_by
        The task that makes it, for messages.

    Returns
    -------
    bool
        Whether there was a manifest to hold it against.

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
        message = f"{manifest.name}: not a manifest ({error!r}). {rerun(made_by)}"
        raise BadDataError(message) from error
    # the size first: it costs nothing and finds most files that were cut short
    if path.stat().st_size != size or _digest(path)[0] != digest:
        raise BadDataError(
            f"{path.name}: its content is not what its manifest {manifest.name} records; it was cut short or changed "
            f"after it was written. {rerun(made_by)}"
        )
    return True


def is_finished(path: Path, inputs: str | None) -> bool:
    """Say whether an output is whole and was made from these inputs, so that it need not be made again."""
    try:
        recorded = json.loads(manifest_path(path).read_text(encoding="utf-8"))
        return path.is_file() and recorded.get("inputs") == inputs and verify(path)
    except (OSError, ValueError, AttributeError, RecursionError, BadDataError):
        return False


def check_writable(path: Path, name: str) -> None:
    """Make sure that `path`, which the parameter `name` gives, can be written: better now than after hours of work.

    Raises
    ------
    BadParameterError
        When the place is a directory, or its directory may not be written to.
    """
    if path.is_dir():
        raise BadParameterError(f"{name} is {str(path)!r}, which is a directory: it must name a file.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _translated(error, path) from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise _not_allowed(path)


def check_directory(directory: Path, name: str) -> None:
    """Make sure that files can be made in `directory`, which the parameter `name` gives.

    Raises
    ------
    BadParameterError
        When it may not be written to, or is not there.
    """
    if not os.access(directory, os.W_OK | os.X_OK):
        raise BadParameterError(
            f"{name} is {str(directory)!r}, which may not be written to by uid {os.getuid()}. "
            "Mount it writable, and give that user the right to write in it."
        )


def _digest(path: Path) -> tuple[str, int]:
    """Compute the SHA-256 of a file in hexadecimal, and its size in bytes."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 20), b""):
            digest.update(block)
            size += len(block)
    return digest.hexdigest(), size


def _flush(path: Path) -> None:
    """Make the kernel put a file's content, or a directory's names, on the disk itself."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        # some network and desktop file systems cannot flush a directory; the rename stands without
        if not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def _remove_abandoned_parts(path: Path) -> None:
    now = time.time()
    for part in path.parent.glob(f".{path.name}.*{_PART_SUFFIX}"):
        with contextlib.suppress(OSError):
            if now - part.stat().st_mtime > _ABANDONED_AFTER:
                part.unlink()


def _translated(error: OSError, path: Path) -> Exception:
    """Put an error met while writing `path` into words that name the place and the remedy."""
    trouble = passing_trouble(error)
    if trouble is not None:
        return TryAgainError(f"{path}: {trouble}, nothing was written. Make room there, then run the task again.")
    return _not_allowed(path) if isinstance(error, PermissionError) or error.errno == errno.EROFS else error


def _not_allowed(path: Path) -> BadParameterError:
    return BadParameterError(
        f"{path}: its directory may not be written to by uid {os.getuid()}. "
        "Mount it writable, and give that user the right to write in it."
    )
