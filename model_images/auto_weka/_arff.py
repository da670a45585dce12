"""Tables as WEKA reads them: ARFF, written a batch at a time.

Features are called ``f0``, ``f1``, … in the table's order, whatever the dataset calls them; the class comes last, is
nominal, and is ``0`` or ``1``. A missing value is ``?``.
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
        Where to.
    features
        How many there are.
    blocks
        Feature values, shape (rows, features), NaN where missing, and the classes, shape (rows,), or None where they
        are not known or nobody's business.
    """
    with path.open("wb") as stream:
        attributes = "".join(f"@attribute f{number} numeric\n" for number in range(features))
        stream.write(f"@relation numerai\n{attributes}@attribute class {{{','.join(CLASSES)}}}\n@data\n".encode())
        for values, labels in blocks:
            columns = [_texts(values[:, column]) for column in range(features)]
            classes = pa.array([_MISSING] * len(values)) if labels is None else _texts(labels)
            names = [str(number) for number in range(features + 1)]
            # a text column needs no escapes here, and the numbers are formatted by native code
            csv.write_csv(pa.table([*columns, classes], names=names), stream, _PLAIN)


def write_header(path: Path, features: int) -> None:
    """Write a file with one row that says nothing, where WEKA insists on a test set and none is wanted."""
    write(path, features, [(np.full((1, features), np.nan, dtype=np.float32), np.zeros(1, dtype=np.int8))])


def _texts(values: NDArray[Any]) -> pa.Array:
    return pc.fill_null(pc.cast(pa.array(values, from_pandas=True), pa.string()), _MISSING)
