"""Names of the model images, with a content hash as the tag.

The tag of an image is a hash of its inputs: its own folder, the contract package and the base. The launcher, which
builds images (``launcher/images.py``), and the DAG, which runs them, compute the same tag from the same files. So a run
records exactly the code of its predictions, and an image is rebuilt only when its inputs change.
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
_IGNORED_FOLDERS = frozenset({"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"})


def image_inputs(images_dir: Path, image: str) -> Iterator[Path]:
    """Yield the input files of an image, in a fixed order.

    The base is built from its own folder; other images also from the contract package and the base.
    """
    for folder in (image,) if image == BASE else (image, *_SHARED_FOLDERS):
        yield from source_files(images_dir / folder)


def source_files(path: Path) -> Iterator[Path]:
    """Yield the source files at or below a path, without caches, in a fixed order."""
    for found in sorted(path.rglob("*")) if path.is_dir() else [path]:
        if found.is_file() and not _IGNORED_FOLDERS.intersection(found.parts) and found.suffix != ".pyc":
            yield found


def content_hash(root: Path, files: Iterable[Path], begin: str = "") -> str:
    """Hash a text, and files by their names below ``root`` and contents: 12 hexadecimal digits."""
    digest = hashlib.sha256(begin.encode())
    above = f"{root.as_posix()}/"
    for path in files:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        digest.update(f"{path.as_posix().removeprefix(above)}\0{content}\n".encode())
    return digest.hexdigest()[:12]


def image_tag(images_dir: Path, image: str, python: str = PYTHON) -> str:
    """Hash an image's inputs (names, contents, and the Python version of its base): 12 hexadecimal digits.

    Raises
    ------
    FileNotFoundError
        When the image has no folder with a Dockerfile.
    """
    if not (images_dir / image / "Dockerfile").is_file():
        raise FileNotFoundError(images_dir / image / "Dockerfile")
    return content_hash(images_dir, image_inputs(images_dir, image), f"python {python}\n")


def image_reference(images_dir: Path, image: str, python: str = PYTHON) -> str:
    """Return the full name of an image, such as ``numerai-classic:0f3a…``, without the address of a registry."""
    return f"numerai-{image.replace('_', '-')}:{image_tag(images_dir, image, python)}"
