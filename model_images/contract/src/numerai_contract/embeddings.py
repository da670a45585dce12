"""The t-SNE embeddings, each a file of coordinates in the folder ``tsne/``.

The file of the fit, in the run's directory, has a row for each row of the training and of the validation table: ``id``,
``x``, ``y`` (and ``z``, in three dimensions), float32. The coordinates of the rows to predict, placed in the finished
embedding, are in a file of the same name in the folder ``live/``. Its name encodes its parameters: ``perplexity_30``,
``perplexity_30_polynomial`` (of the features and their products of two) or ``perplexity_30_3d``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from numerai_contract.rows_by_id import load_aligned, write

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView

FOLDER = "tsne"
LIVE = "live"
"""Folder, in the run's directory, of the files about the rows to predict."""
PRODUCER = "tsne"
PERPLEXITIES = (5, 10, 15, 30, 50)

_AXES = ("x", "y", "z")
_NAME = re.compile(r"perplexity_(\d{2,3})(_polynomial)?(_3d)?")


class Embedding(NamedTuple):
    """The parameters of an embedding.

    Attributes
    ----------
    perplexity : int
        The approximate number of neighbours of a row; from 1 to 999.
    polynomial : bool
        Whether neighbours are found among the features and their products of two, or the features alone.
    dimensions : int
        2 or 3.
    """

    perplexity: int
    polynomial: bool = False
    dimensions: int = 2

    @classmethod
    def parse(cls, name: str) -> Embedding | None:
        """Parse a name such as ``perplexity_05_polynomial``; None when it is not a valid name."""
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        return cls(int(match[1]), bool(match[2]), 3 if match[3] else 2)

    @property
    def name(self) -> str:
        """Its name, such as ``perplexity_05_polynomial``."""
        space = "_polynomial" if self.polynomial else ""
        return f"perplexity_{self.perplexity:02}{space}" + ("_3d" if self.dimensions == 3 else "")

    @property
    def axes(self) -> tuple[str, ...]:
        """Names of its coordinates: x, y and, in three dimensions, z."""
        return _AXES[: self.dimensions]

    def path(self, storing: Path) -> Path:
        """Return its path in a directory: the run's, that of a fit (MODEL), or `LIVE` in the run's."""
        return storing / FOLDER / f"{self.name}.parquet"


STANDARD = tuple(Embedding(perplexity, polynomial) for polynomial in (False, True) for perplexity in PERPLEXITIES)
"""The ten embeddings of every run."""


def write_embedding(
    storing: Path, embedding: Embedding, ids: pa.ChunkedArray, coordinates: NDArray[np.float32], inputs: str | None
) -> Path:
    """Write an embedding into a directory, with its manifest; return its path.

    Parameters
    ----------
    storing
        The directory, see `Embedding.path`.
    embedding
        Its parameters.
    ids
        Of the rows, shape (rows,).
    coordinates
        Finite, shape (rows, dimensions).
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    path = embedding.path(storing)
    columns = {axis: pa.array(coordinates[:, column], pa.float32()) for column, axis in enumerate(embedding.axes)}
    write(path, ids, columns, inputs)
    return path


def read_embedding(storing: Path, embedding: Embedding, table: TableView) -> NDArray[np.float32]:
    """Read the coordinates of a table's rows, in the table's order; shape (rows, dimensions).

    Raises
    ------
    MissingInputError
        When the file does not exist.
    BadDataError
        When it differs from its manifest, or lacks a row of the table.
    """
    columns = load_aligned(table, embedding.path(storing), embedding.axes, producer=PRODUCER)
    return np.column_stack([columns[axis].to_numpy(zero_copy_only=False) for axis in embedding.axes])
