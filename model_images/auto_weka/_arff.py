"""Writer of ARFF, the table format of WEKA, a batch at a time.

Features have the names ``f0``, ``f1``, … in the table's order, independent of the dataset's; the class is the
last column, nominal, ``0`` or ``1``. A missing value is ``?``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from numpy.typing import NDArray

CLASSES = ("0", "1")
_MISSING = "?"
_PLAIN = csv.WriteOptions(include_header=False, quoting_style="none")


def write(path: Path, features: int, blocks: Iterable[tuple[NDArray[Any], NDArray[np.int8] | None]]) -> None:
    """Write a file.

    Parameters
    ----------
    path
        The path of the file.
    features
        Number of features.
    blocks
        Feature values, shape (rows, features), NaN where missing, and the classes, shape (rows,), or None where they
        are unknown or must be hidden.
    """
    with path.open("wb") as stream:
        attributes = "".join(f"@attribute f{number} numeric\n" for number in range(features))
        stream.write(f"@relation numerai\n{attributes}@attribute class {{{','.join(CLASSES)}}}\n@data\n".encode())
        for values, labels in blocks:
            columns = [_texts(values[:, column]) for column in range(features)]
            classes = pa.array([_MISSING] * len(values)) if labels is None else _texts(labels)
            names = [str(number) for number in range(features + 1)]
            # native code formats the numbers, and text columns need no escapes here
            csv.write_csv(pa.table([*columns, classes], names=names), stream, _PLAIN)


def write_header(path: Path, features: int) -> None:
    """Write a file with one row of missing values, since WEKA requires a test set that is not needed here."""
    write(path, features, [(np.full((1, features), np.nan, dtype=np.float32), np.zeros(1, dtype=np.int8))])


def _texts(values: NDArray[Any]) -> pa.Array:
    return pc.fill_null(pc.cast(pa.array(values, from_pandas=True), pa.string()), _MISSING)
