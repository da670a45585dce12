"""Room on the data volume: looked for before a long work, and a full disk named as what it is."""

from __future__ import annotations

import errno
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from numerai_pipeline.errors import DiskFullError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RESERVE = 64 * 2**20
_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def require_free_space(directory: Path, needed: int, what: str) -> None:
    """Make sure that ``needed`` bytes and a small reserve fit beside what is in an existing directory.

    Raises
    ------
    DiskFullError
        Naming what needs the room, how much is needed and how much is free.
    """
    free = shutil.disk_usage(directory).free
    if free < needed + RESERVE:
        msg = (
            f"{what} needs {megabytes(needed + RESERVE)} on the volume of {directory}, but only {megabytes(free)} are"
            " free: make room there and try again"
        )
        raise DiskFullError(msg)


@contextmanager
def disk_full_named(directory: Path) -> Iterator[None]:
    """Turn the operating system's "no space left" into :class:`DiskFullError`; leave every other error as it is."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        msg = f"no space is left on the volume of {directory} ({error.strerror}): make room there and try again"
        raise DiskFullError(msg) from error


def megabytes(count: int) -> str:
    """Bytes as people read them, in millions."""
    return f"{count / 1e6:,.1f} MB"
