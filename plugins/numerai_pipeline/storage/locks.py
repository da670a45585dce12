"""File locks between processes that share the data volume.

They are the operating system's locks and end with their process, so a killed task does not keep one.
"""

from __future__ import annotations

import fcntl
import logging
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


def lock_path(path: Path) -> Path:
    """Return the lock file for making or removing ``path``: a hidden file beside it."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def file_lock(file: Path) -> Iterator[bool]:
    """Hold a lock while the block runs, unless another process has it: never wait.

    Parameters
    ----------
    file : Path
        The lock file; created if it does not exist.

    Yields
    ------
    bool
        Whether the lock is held: False when another process has it. On a file system without locks, always True.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        held = True
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError as error:
            log.warning("%s: no lock on this file system (%s)", file, error)
        yield held


@contextmanager
def exclusive_lock(path: Path, activity: str, *, beside: bool = True) -> Iterator[bool]:
    """Let one process at a time work on a path; the others log that they wait.

    Parameters
    ----------
    path : Path
        The file or directory to work on.
    activity : str
        The work of the other process, for the log, such as ``downloading it``.
    beside : bool
        Lock a hidden file beside the path, which may then be replaced or removed. Otherwise lock the path itself, which
        must exist.

    Yields
    ------
    bool
        Whether the lock is held: False on a file system without locks. A process that writes to a temporary file then
        risks only duplicate work.
    """
    handle = os.open(lock_path(path), os.O_RDWR | os.O_CREAT, 0o644) if beside else os.open(path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another task is %s; waiting", path, activity)
            fcntl.flock(handle, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("%s: no lock on this file system (%s)", path, error)
            yield False
            return
        yield True
    finally:
        os.close(handle)
