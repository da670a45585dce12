"""Which image a model runs in: the name says exactly which code it holds.

An image's tag is a hash of everything it is built from: its own folder, the contract package and the base. Whoever
builds images (``launcher/images.py``) and whoever runs them (the DAG) computes the same tag from the same files, so a
run records exactly which code made its predictions, and an image is rebuilt only when its inputs changed.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

BASE = "base"
PYTHON = "3.12"
_SHARED_FOLDERS = ("contract", BASE)
_LEFT_OUT = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})


def image_inputs(images_dir: Path, image: str) -> Iterator[Path]:
    """All files an image is built from, in a fixed order.

    The base is made from its own folder alone; every other image also from the contract package and the base.
    """
    for folder in (image,) if image == BASE else (image, *_SHARED_FOLDERS):
        yield from source_files(images_dir / folder)


def source_files(path: Path) -> Iterator[Path]:
    """All files at or below a path that somebody wrote, in a fixed order: no caches."""
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if found.is_file() and not _LEFT_OUT.intersection(found.parts) and found.suffix != ".pyc":
            yield found


def content_hash(root: Path, files: Iterable[Path], begin: str = "") -> str:
    """Hash of files by their names below ``root`` and contents, after a text: 12 hexadecimal digits."""
    digest = hashlib.sha256(begin.encode())
    above = f"{root.as_posix()}/"
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.as_posix().removeprefix(above)}\0{content}\n".encode())
    return digest.hexdigest()[:12]


def image_tag(images_dir: Path, image: str, python: str = PYTHON) -> str:
    """Hash of an image's inputs (names, contents, and the Python version of its base): 12 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        When the image has no folder with a Dockerfile.
    """
    if not (images_dir / image / "Dockerfile").is_file():
        raise FileNotFoundError(images_dir / image / "Dockerfile")
    return content_hash(images_dir, image_inputs(images_dir, image), f"python {python}\n")


def image_reference(images_dir: Path, image: str, python: str = PYTHON) -> str:
    """Full name of an image, such as ``numerai-classic:0f3a…``, without the address of a registry."""
    return f"numerai-{image.replace('_', '-')}:{image_tag(images_dir, image, python)}"
