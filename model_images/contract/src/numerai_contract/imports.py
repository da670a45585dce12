"""Imports that a container does without: most of a small model's time goes into them."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def absent(*modules: str) -> Iterator[None]:
    """Let modules look as if they were not installed, to what is imported inside the block.

    For libraries that import others only where they are there, to offer them something. What is imported already stays
    imported, so the block changes nothing for a process that has the modules for reasons of its own.

    Parameters
    ----------
    modules
        Their full names.
    """
    hidden = [name for name in modules if name not in sys.modules]
    # None is how Python itself notes that a module is not to be found
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
