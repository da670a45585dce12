"""Directories that appear complete, by one rename, and never change afterwards."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside ``path``, and rename it to ``path`` when the block succeeds.

    A failed block removes its temporary directory; those of killed processes are removed as well. The caller holds a
    lock (``locks.exclusive_lock``), so that one process at a time makes ``path``. The files are flushed to disk before
    the rename. ``path`` must not exist.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    for leftover in path.parent.glob(f".{path.name}.*.part"):
        shutil.rmtree(leftover)
    temporary = _temporary_directory(path)
    try:
        yield temporary
        flush_tree(temporary)
        temporary.rename(path)
        flush(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_directory(path: Path) -> None:
    """Remove a directory: it disappears as a whole, by a rename, before its files are removed."""
    doomed = _temporary_directory(path)
    path.replace(doomed)
    shutil.rmtree(doomed)


def _temporary_directory(path: Path) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    # the containers that read the files have another user
    directory.chmod(0o755)
    return directory


def flush_tree(directory: Path) -> None:
    """Flush the files and folders of a directory, and the directory, to the disk."""
    for path in (*directory.rglob("*"), directory):
        flush(path)


def flush(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
