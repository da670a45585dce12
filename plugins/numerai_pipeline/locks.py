"""Locks between processes that share the data volume, which no crash leaves behind."""

from __future__ import annotations

import fcntl
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)


@contextmanager
def locked(file: Path, kind: Literal["shared", "alone"], *, wait: bool = True) -> Iterator[bool]:
    """Hold a lock while the block runs, and tell whether it is held.

    Parameters
    ----------
    file : Path
        The lock file; made when it is not there. The lock is the operating system's and ends with its process.
    kind : {"shared", "alone"}
        Whether others may hold it, ``shared``, at the same time.
    wait : bool
        Whether to wait for those who hold it; otherwise the block gets False when it is taken.
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
