"""The operations of an image: the modules ``<operation>_operation.py`` of one folder.

The folder is not on the import path; its modules belong to the package ``numerai_operations``, and import each other
relatively (``from ._shared import ...``). All other modules of the folder are helpers.
"""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_contract.task import Task

DEFAULT_FOLDER = "/opt/operations"
_PACKAGE = "numerai_operations"
_SUFFIX = "_operation"


def folder() -> Path:
    """Return the folder of the image's operations: ``OPERATIONS_DIR``."""
    return Path(os.environ.get("OPERATIONS_DIR") or DEFAULT_FOLDER)


def available() -> list[str]:
    """List the operations of this image, in alphabetical order."""
    return sorted(path.stem.removesuffix(_SUFFIX) for path in folder().glob(f"[!_]*{_SUFFIX}.py"))


def load(name: str) -> ModuleType:
    """Import the module of an operation.

    Raises
    ------
    BadParameterError
        When the image has no such operation; the message lists the available ones.
    """
    module = f"{name}{_SUFFIX}"
    is_former = name.isidentifier() and not name.startswith("_") and (folder() / f"{name}.py").is_file()
    if name not in available() and is_former:
        message = f"{name}.py: rename it to {module}.py; the next release does not find it under its former name"
        warnings.warn(message, FutureWarning, stacklevel=2)
        module = name
    elif name not in available():
        names = ", ".join(available()) or "none"
        raise BadParameterError(
            f"OPERATION is {name!r}: this image has {names}. An operation is a module <operation>{_SUFFIX}.py in "
            f"{folder()}."
        )
    if _PACKAGE not in sys.modules:
        package = ModuleType(_PACKAGE)
        package.__path__ = [str(folder())]
        sys.modules[_PACKAGE] = package
    return importlib.import_module(f"{_PACKAGE}.{module}")


def run(task: Task) -> None:
    """Run the operation that the task's parameters name: its own `run`, or its fit and its predictions.

    Raises
    ------
    BadParameterError
        When it does not exist, or is to learn several targets but has no `fit` that can be made for each.
    """
    module, parameters = load(task.parameters.operation), task.parameters
    if parameters.targets and (not hasattr(module, "fit") or getattr(module, "RESUMES", False)):
        raise BadParameterError(
            f"TARGETS is {','.join(parameters.targets)!r}: the operation {parameters.operation!r} learns one target. "
            "Remove `several_targets` from its entry in models.yaml."
        )
    if hasattr(module, "run"):
        work: Callable[[Task], None] = module.run
        work(task)
    else:
        # imports NumPy, whose memory the supervisor must not share
        from numerai_contract import fitting

        fitting.run(task, module)
