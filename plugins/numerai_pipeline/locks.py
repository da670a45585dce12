"""One at a time: runs with the same settings share their files, and tasks that make the same file take turns."""

from __future__ import annotations

import fcntl
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def alone_at(path: Path, doing: str) -> Iterator[bool]:
    """Let only one process at a time make a file; the others wait.

    The lock is the kernel's and ends with its process, so a killed task never leaves one behind. It is on a hidden file
    beside ``path``, ``.<name>.lock``.

    Parameters
    ----------
    path : Path
        What is made; its folder exists.
    doing : str
        What another process is doing should there be a wait, such as ``downloading it``.

    Yields
    ------
    bool
        Whether this process really is alone: False where the file system has no locks. Whoever writes under a
        temporary name of its own then loses nothing but time.
    """
    with path.with_name(f".{path.name}.lock").open("w") as lock:
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
