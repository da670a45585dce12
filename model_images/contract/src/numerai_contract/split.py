"""The split made by adversarial validation: the rows most similar to the validation table's are the validation part.

The file ``split.parquet`` in the run's directory has ``id``, ``similarity`` (float32) and ``split`` (train | validation
| embargo), one row for each row of the training table. It is read in the order of the reader's table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.rows_by_id import load_aligned, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView

FILE = "split.parquet"
PRODUCER = "adversarial_validation"
TRAIN, VALIDATION, EMBARGO = "train", "validation", "embargo"


class Split(NamedTuple):
    """The split of a training table's rows.

    Attributes
    ----------
    similarity : numpy.ndarray of float32, shape (rows,)
        Estimated probability that the row is one of the validation table's rather than the training table's, in [0, 1].
    validation : numpy.ndarray of bool, shape (rows,)
        Marks of the validation rows.
    embargo : numpy.ndarray of bool, shape (rows,), or None
        Marks of the rows in neither part, between their eras; None without any.
    """

    similarity: NDArray[np.float32]
    validation: NDArray[np.bool_]
    embargo: NDArray[np.bool_] | None = None

    @property
    def training(self) -> NDArray[np.bool_]:
        """Marks of the training rows, shape (rows,): all rows in neither the validation part nor the embargo."""
        return ~self.validation if self.embargo is None else ~(self.validation | self.embargo)


def write_split(storing: Path, ids: pa.ChunkedArray, split: Split, inputs: str | None) -> Path:
    """Write a split into a directory, with its manifest; return its path.

    Parameters
    ----------
    storing
        The directory of the fit.
    ids
        Those of the training table, shape (rows,).
    split
        In the same order.
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    path = storing / FILE
    parts = np.where(split.validation, VALIDATION, np.where(split.training, TRAIN, EMBARGO))
    write(path, ids, {"similarity": pa.array(split.similarity, pa.float32()), "split": pa.array(parts)}, inputs)
    return path


def read_split(storing: Path, table: TableView) -> Split:
    """Read the split of a training table's rows, in the table's order.

    Raises
    ------
    MissingInputError
        When the file does not exist.
    BadDataError
        When it differs from its manifest, lacks a row of the table, or one of its two parts is empty.
    """
    path = storing / FILE
    columns = load_aligned(table, path, ("similarity", "split"), producer=PRODUCER, texts=("split",))
    parts = columns["split"].to_numpy(zero_copy_only=False)
    split = Split(columns["similarity"].to_numpy(zero_copy_only=False), parts == VALIDATION, parts == EMBARGO)
    for part, rows in ((TRAIN, split.training), (VALIDATION, split.validation)):
        if not rows.any():
            message = (
                f"{path.name}: no row of {table.path.name} is in the part {part!r}. {outputs.rerun_hint(PRODUCER)}"
            )
            raise BadDataError(message)
    return split
