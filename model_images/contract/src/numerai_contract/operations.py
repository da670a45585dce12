"""The operations of an image: one module each, found by the name of its file.

They live in a folder that is not on the import path, under a package name of their own. So an operation may carry the
name of the library it uses (``xgboost.py``) without standing in its way, and may import its neighbours
(``from ._shared import ...``; names with an underscore are not operations).
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_contract.task import Task

DEFAULT_FOLDER = "/opt/operations"
_PACKAGE = "numerai_operations"


def folder() -> Path:
    """Where the image keeps its operations: ``OPERATIONS_DIR``."""
    return Path(os.environ.get("OPERATIONS_DIR") or DEFAULT_FOLDER)


def known() -> list[str]:
    """Name the operations of this image, in alphabetical order."""
    return sorted(path.stem for path in folder().glob("*.py") if not path.stem.startswith("_"))


def load(name: str) -> ModuleType:
    """Import the module of an operation.

    Raises
    ------
    BadParameterError
        When the image has no such operation; the message lists those it has.
    """
    if name not in known():
        message = f"OPERATION is {name!r}: this image knows {', '.join(known()) or f'none, {folder()} is empty'}."
        raise BadParameterError(message)
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(folder())]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{name}")


def run(task: Task) -> None:
    """Run the operation that the task's parameters name."""
    work: Callable[[Task], None] = load(task.parameters.operation).run
    work(task)
