"""The data volume's own troubles: room looked for before a long work, and every failure named as what it is."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_pipeline.errors import DiskFullError, PipelineError, VolumeError
from numerai_pipeline.number_format import distinct_texts

if TYPE_CHECKING:
    from collections.abc import Iterator

RESERVE = 64 * 2**20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EACCES, errno.EPERM})
_PASSING = frozenset({errno.EIO, errno.ESTALE})


def require_free_space(directory: Path, needed: int, what: str) -> None:
    """Make sure that ``needed`` bytes and a small reserve fit beside what is in an existing directory.

    Raises
    ------
    DiskFullError
        Naming what needs the room, how much is needed and how much is free.
    """
    free = shutil.disk_usage(directory).free
    if free < needed + RESERVE:
        required, available = distinct_texts((needed + RESERVE) / 1e6, free / 1e6)
        msg = (
            f"{what} needs {required} MB on the volume of {directory}, but only {available} MB are free: make room"
            " there and try again"
        )
        raise DiskFullError(msg)


@contextmanager
def disk_errors_named(directory: Path) -> Iterator[None]:
    """Turn what the operating system says of a full, read-only, forbidden or failing volume into the pipeline's errors.

    Raises
    ------
    DiskFullError, VolumeError, PipelineError
        See :func:`disk_error`. Every other error passes as it is.
    """
    try:
        yield
    except OSError as error:
        known = disk_error(error, directory)
        if known is None:
            raise
        raise known from error


def disk_error(error: OSError, directory: Path | None = None) -> PipelineError | None:
    """Say what an error of the operating system means for the data volume, and what to do; None when it is none.

    Parameters
    ----------
    error : OSError
        The error. The place is the file it names.
    directory : Path, optional
        The place where it names none.

    Returns
    -------
    DiskFullError
        No space is left, or a quota is used up: worth trying again once there is room.
    VolumeError
        The volume is read-only, or belongs to somebody else: not worth trying again before that is mended.
    PipelineError
        The disk itself failed: worth trying again.
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
            f"{where}: uid {os.geteuid()} has no right to it ({error.strerror}{_whose(place)}): give the data volume"
            f" to that user (chown -R {os.geteuid()}), or run Airflow as its owner, then clear this task"
        )
        return VolumeError(msg)
    if error.errno in _PASSING:
        msg = f"{where}: could not be read or written ({error.strerror}): check the disk behind the data volume"
        return PipelineError(msg)
    return None


def _whose(place: Path | None) -> str:
    """Tell to whom the nearest folder that is there belongs."""
    for folder in (place, *place.parents) if place is not None else ():
        try:
            status = folder.stat()
        except OSError:
            continue
        return f"; {folder} belongs to uid {status.st_uid}, mode {stat.S_IMODE(status.st_mode):04o}"
    return ""


def megabytes(count: int) -> str:
    """Bytes as people read them, in millions."""
    return f"{count / 1e6:,.1f} MB"
