"""Locks between processes that share the data volume: the operating system's, which end with their process.

A killed task never leaves one behind.
"""

from __future__ import annotations

import fcntl
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


def lock_path(path: Path) -> Path:
    """Where the lock is that whoever makes or removes ``path`` has alone: a hidden file beside it."""
    return path.with_name(f".{path.name}.lock")


@contextmanager
def locked(file: Path, kind: Literal["shared", "alone"], *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the block runs, and tell whether it is held.

    Parameters
    ----------
    file : Path
        The lock file; made when it is not there.
    kind : {"shared", "alone"}
        Whether others may hold it, ``shared``, at the same time.
    wait : bool
        Whether to wait for those who hold it; otherwise the block gets False when it is taken. Where the file system
        has no locks, it always counts as held.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        operation = fcntl.LOCK_SH if kind == "shared" else fcntl.LOCK_EX
        held = True
        try:
            fcntl.flock(lock, operation if wait else operation | fcntl.LOCK_NB)
        except BlockingIOError:
            held = False
        except OSError as error:
            log.warning("%s: no lock on this file system (%s)", file, error)
        yield held


@contextmanager
def alone_at(path: Path, doing: str) -> Iterator[bool]:
    """Let only one process at a time make a file; the others wait, and say so.

    Parameters
    ----------
    path : Path
        What is made.
    doing : str
        What another process is doing should there be a wait, such as ``downloading it``.

    Yields
    ------
    bool
        Whether this process really is alone: False where the file system has no locks. Whoever writes under a
        temporary name of its own then loses nothing but time.
    """
    with lock_path(path).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s: another task is %s; waiting", path, doing)
            fcntl.flock(lock, fcntl.LOCK_EX)
        except OSError as error:
            log.warning("%s: no lock on this file system (%s)", path, error)
            yield False
            return
        yield True
