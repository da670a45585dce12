"""The state of a saved model, for models whose library has no format of its own.

Arrays and settings are NumPy's ``.npz`` and JSON. An estimator of scikit-learn is a pickle, its library's own way; it
is loaded only from a directory that this image has saved itself, after `ModelDirectory.verify` has found every file
unchanged.
"""

from __future__ import annotations

import json
import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

_ARRAYS, _SETTINGS, _ESTIMATOR = "arrays.npz", "settings.json", "estimator.pickle"


class SavedState(NamedTuple):
    """The state of a model.

    Attributes
    ----------
    arrays : dict
        Name → array; each comes back with the same bytes, type and shape.
    settings : dict
        JSON values; floats come back exactly.
    """

    arrays: dict[str, NDArray[Any]]
    settings: dict[str, Any]


def save(directory: Path, arrays: Mapping[str, NDArray[Any]], settings: Mapping[str, Any]) -> None:
    """Save arrays and settings into an existing directory.

    Raises
    ------
    TypeError
        When an array has Python objects, or a setting is not a JSON value.
    """
    for name, array in arrays.items():
        if array.dtype.hasobject:
            raise TypeError(f"the array {name!r} has Python objects: only numbers and text can be saved.")
    np.savez(directory / _ARRAYS, **arrays)  # type: ignore[arg-type]
    (directory / _SETTINGS).write_text(json.dumps(dict(settings), indent=1) + "\n", encoding="utf-8")


def load(directory: Path) -> SavedState:
    """Load what `save` has saved; no code in the files is executed."""
    with np.load(directory / _ARRAYS, allow_pickle=False) as stored:
        arrays = {name: stored[name] for name in stored.files}
    return SavedState(arrays, json.loads((directory / _SETTINGS).read_text(encoding="utf-8")))


def save_estimator(directory: Path, estimator: object) -> None:
    """Save an estimator of scikit-learn, or of a library that follows it, into an existing directory."""
    with (directory / _ESTIMATOR).open("wb") as stream:
        pickle.dump(estimator, stream, protocol=pickle.HIGHEST_PROTOCOL)


def load_estimator(directory: Path) -> Any:
    """Load what `save_estimator` has saved; the directory must have been verified."""
    with (directory / _ESTIMATOR).open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 - saved by this image, verified by its digest
