"""Real data volumes with real faults: full, read-only, of another user, with a changed byte."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

NOBODY = 65_534


def _mount(*arguments: str | Path, what: str) -> None:
    if os.geteuid() != 0:
        pytest.skip(f"only root can mount: NOT TESTED here that {what} is reported")
    done = subprocess.run(["mount", *map(str, arguments)], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"cannot mount here ({done.stderr.strip()}): NOT TESTED that {what} is reported")


def _unmount(directory: Path) -> None:
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


class Volume:
    """A separate file system in memory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def resize(self, size: int) -> None:
        """Make it this many bytes large, without a loss."""
        _mount("-o", f"remount,size={size}", self.directory, what="a full volume")

    def fill(self, left: int) -> Path:
        """Take up all but this many bytes; returns the file to remove."""
        status = os.statvfs(self.directory)
        filler = self.directory / "other_data"
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, status.f_bavail * status.f_frsize - left)
        return filler


@contextmanager
def small_volume(directory: Path, size: int) -> Iterator[Volume]:
    """Mount a file system of this many bytes at a folder, which is created."""
    directory.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", directory, what="a full volume")
    try:
        yield Volume(directory)
    finally:
        _unmount(directory)


def make_read_only(directory: Path) -> None:
    """Make a folder read-only, until :func:`make_writable`."""
    _mount("--bind", directory, directory, what="a read-only volume")
    try:
        _mount("-o", "remount,ro,bind", directory, what="a read-only volume")
    except BaseException:
        _unmount(directory)
        raise


def make_writable(directory: Path) -> None:
    """Undo :func:`make_read_only`."""
    _unmount(directory)


def unmount_all(directory: Path) -> None:
    """Undo all mounts at a folder."""
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines():
        if line.split()[4] == str(directory):
            _unmount(directory)


@contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Make a folder read-only while the block runs."""
    make_read_only(directory)
    try:
        yield
    finally:
        make_writable(directory)


@contextmanager
def foreign_volume() -> Iterator[Path]:
    """Give a folder that this process, while the block runs, may read and not write."""
    with tempfile.TemporaryDirectory(prefix="volume-") as name:
        directory = Path(name)
        directory.chmod(0o555)
        root = os.geteuid() == 0
        try:
            if root:
                os.seteuid(NOBODY)  # root may write everywhere
            yield directory
        finally:
            if root:
                os.seteuid(0)
            directory.chmod(0o755)


def flip_a_byte(path: Path, share: float = 0.5) -> None:
    """Turn one bit of a file, at a share of its length; its size and times stay."""
    status = path.stat()
    content = bytearray(path.read_bytes())
    content[int(share * (len(content) - 1))] ^= 0x10
    with path.open("r+b") as file:
        file.write(content)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
