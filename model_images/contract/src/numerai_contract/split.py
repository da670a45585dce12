"""The split that adversarial validation makes: the training rows most like the tournament's are kept to validate on.

It lies in the run's directory as ``split.parquet``: ``id``, ``likeness`` (float32) and ``split`` (train | validation),
one row for each row of the training table. Whoever reads it gets it in the order of the table it is read for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.rows_by_id import read_for, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

FILE = "split.parquet"
MADE_BY = "adversarial_validation"
TRAIN, VALIDATION = "train", "validation"


class Split(NamedTuple):
    """What is known of each row of a training table.

    Attributes
    ----------
    likeness : numpy.ndarray of float32, shape (rows,)
        How likely the row is one of the tournament's rather than the training table's, in [0, 1].
    validation : numpy.ndarray of bool, shape (rows,)
        Marks of the rows to validate on; all others are to learn from.
    """

    likeness: NDArray[np.float32]
    validation: NDArray[np.bool_]


def write_split(storing: Path, ids: pa.ChunkedArray, split: Split, inputs: str | None) -> Path:
    """Write a split into the run's directory, with its manifest; return where it is.

    Parameters
    ----------
    storing
        The run's directory.
    ids
        The training table's, shape (rows,).
    split
        In the same order.
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    path = storing / FILE
    words = np.where(split.validation, VALIDATION, TRAIN)
    write(path, ids, {"likeness": pa.array(split.likeness, pa.float32()), "split": pa.array(words)}, inputs)
    return path


def read_split(storing: Path, table: Table) -> Split:
    """Read the split of a training table's rows, in the table's order.

    Raises
    ------
    MissingInputError
        When there is none.
    BadDataError
        When it differs from its manifest, lacks a row of the table, or leaves nothing on one of its two sides.
    """
    path = storing / FILE
    columns = read_for(table, path, ("likeness", "split"), made_by=MADE_BY, texts=("split",))
    words = columns["split"].to_numpy(zero_copy_only=False)
    validation = words == VALIDATION
    if validation.all() or not validation.any():
        side = TRAIN if validation.all() else VALIDATION
        message = f"{path.name}: no row of {table.path.name} is on the side {side!r}. {outputs.rerun(MADE_BY)}"
        raise BadDataError(message)
    return Split(columns["likeness"].to_numpy(zero_copy_only=False), validation)
