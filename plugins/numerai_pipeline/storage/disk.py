"""Disk errors of the data volume: free space is checked before long work, and each failure is classified here."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_pipeline.core.errors import DiskFullError, PipelineError, VolumeError
from numerai_pipeline.core.number_format import distinct_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

RESERVED_BYTES = 64 * 2**20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_TRANSIENT = frozenset({errno.EIO, errno.ESTALE})


def require_free_space(directory: Path, needed: int, what: str) -> None:
    """Check that ``needed`` bytes and a small reserve are free on the volume of an existing directory.

    Raises
    ------
    DiskFullError
        Naming the work, the size that it needs and the free size.
    """
    free = shutil.disk_usage(directory).free
    if free < needed + RESERVED_BYTES:
        required, available = distinct_texts((needed + RESERVED_BYTES) / 1e6, free / 1e6)
        msg = (
            f"{what} needs {required} MB on the volume of {directory}, but only {available} MB are free: make room"
            " there and try again"
        )
        raise DiskFullError(msg)


@contextmanager
def translate_disk_errors(directory: Path) -> Iterator[None]:
    """Translate the operating system's errors of a full, read-only, forbidden or failing volume.

    Raises
    ------
    DiskFullError, VolumeError, PipelineError
        See :func:`classify_disk_error`. Other errors are raised unchanged.
    """
    try:
        yield
    except OSError as error:
        known = classify_disk_error(error, directory)
        if known is None:
            raise
        raise known from error


def classify_disk_error(error: OSError, directory: Path | None = None) -> PipelineError | None:
    """Convert an error of the operating system to an error of the data volume; None if it is unrelated.

    Parameters
    ----------
    error : OSError
        The error.
    directory : Path, optional
        The location to report if the error names no file.

    Returns
    -------
    DiskFullError
        The volume is full, or a quota is used up: retried, since space may become free.
    VolumeError
        The volume is read-only, or belongs to another user: not retried before that is repaired.
    PipelineError
        The disk failed: retried.
    """
    if isinstance(error, ConnectionError) or error.errno is None:
        return None
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else directory
    where = str(place) if place is not None else "the data volume"
    if error.errno in _FULL:
        volume = directory or (place.parent if place is not None else "the data directory")
        msg = f"no space is left on the volume of {volume} ({error.strerror}): make room there and try again"
        return DiskFullError(msg)
    if error.errno == errno.EROFS:
        msg = f"{where}: its volume is mounted read-only ({error.strerror}): mount it writable, then clear this task"
        return VolumeError(msg)
    if error.errno in _FORBIDDEN:
        msg = (
            f"{where}: uid {os.geteuid()} has no permission ({error.strerror}{_describe_owner(place)}): give the data"
            f" volume to that user (chown -R {os.geteuid()}), or run Airflow as its owner, then clear this task"
        )
        return VolumeError(msg)
    if error.errno in _TRANSIENT:
        msg = f"{where}: could not be read or written ({error.strerror}): check the disk behind the data volume"
        return PipelineError(msg)
    return None


def _describe_owner(place: Path | None) -> str:
    """Describe the owner of the nearest folder that exists."""
    for folder in (place, *place.parents) if place is not None else ():
        try:
            status = folder.stat()
        except OSError:
            continue
        return f"; {folder} belongs to uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
    return ""


def megabytes(count: int) -> str:
    """Format bytes in millions."""
    return f"{count / 1e6:,.1f} MB"
