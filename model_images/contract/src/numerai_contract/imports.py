"""Imports that a container can skip: they take most of a small model's time."""

from __future__ import annotations

import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def hidden_modules(*modules: str) -> Iterator[None]:
    """Make modules appear not installed to the imports inside the block.

    For libraries with optional imports. A module that is imported already stays imported, so the block changes nothing
    for a process that uses it for another reason.

    Parameters
    ----------
    modules
        Their full names.
    """
    hidden = [name for name in modules if name not in sys.modules]
    # None is Python's own mark for a module that cannot be found
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            if sys.modules.get(name) is None:
                sys.modules.pop(name, None)
