"""The predictions that lie in a run's directory: those that are whole are read, the others are named.

A model that failed, or was not run, has no file there, or one without a manifest that holds. It is left out and said
so: what is wrong with one model must not keep the others from being judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, MissingInputError
from numerai_contract.predictions import HEADER

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

FOLDER = "predictions"
ENSEMBLE_PREFIX = "ensemble_"
Kind = Literal["model", "ensemble", "reference"]
_WORDS_BESIDE = ("id", "era", "data_type")


class Entry(NamedTuple):
    """Predictions that take part.

    Attributes
    ----------
    name : str
        The model's.
    kind : {"model", "ensemble", "reference"}
        What they are; a reference is what a model should do better than.
    predictions : numpy.ndarray of float64, shape (rows of the tournament table,)
        In its order; a reference may be NaN where it says nothing.
    """

    name: str
    kind: Kind
    predictions: NDArray[np.float64]


class Gathered(NamedTuple):
    """What was found.

    Attributes
    ----------
    entries : list of Entry
        By name.
    left_out : dict
        Name of a model → why its predictions take no part.
    """

    entries: list[Entry]
    left_out: dict[str, str]

    def of_kind(self, kind: Kind) -> list[Entry]:
        """Pick the entries of one kind."""
        return [entry for entry in self.entries if entry.kind == kind]


def gather(storing: Path, table: Table) -> Gathered:
    """Read all predictions of a run's directory.

    Parameters
    ----------
    storing
        The run's directory.
    table
        The tournament table whose rows they must be of.

    Raises
    ------
    MissingInputError
        When no model's predictions are whole.
    """
    gathered = Gathered([], {})
    for path in sorted((storing / FOLDER).glob("[!.]*.csv")):
        try:
            predictions = _read_predictions(path, table)
        except (BadDataError, OSError) as error:
            gathered.left_out[path.stem] = str(error)
        else:
            kind: Kind = "ensemble" if path.stem.startswith(ENSEMBLE_PREFIX) else "model"
            gathered.entries.append(Entry(path.stem, kind, predictions))
    if not gathered.of_kind("model"):
        reasons = "; ".join(f"{name}: {why}" for name, why in gathered.left_out.items()) or "the folder is empty"
        raise MissingInputError(
            f"{storing / FOLDER}: no model has left predictions ({reasons}). Run at least one model first."
        )
    return gathered


def _read_predictions(path: Path, table: Table) -> NDArray[np.float64]:
    if not outputs.verify(path, path.stem):
        raise BadDataError(f"{path.name}: it has no manifest, so it was never finished")
    types = dict(zip(HEADER, (pa.string(), pa.float64()), strict=True))
    try:
        found = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=types))
    except pa.ArrowException as error:
        raise BadDataError(f"{path.name}: it cannot be read as CSV ({error})") from error
    if tuple(found.column_names) != HEADER:
        raise BadDataError(f"{path.name}: its header is {','.join(found.column_names)!r}, not {','.join(HEADER)!r}")
    values = _for_rows(table, found["id"], _numbers(found["prediction"]))
    if len(found) != len(table) or np.isnan(values).any():
        raise BadDataError(f"{path.name}: it does not have each id of {table.path.name} once, with a prediction")
    if not ((values > 0) & (values < 1)).all():
        raise BadDataError(f"{path.name}: its predictions do not all lie strictly between 0 and 1")
    return values


def read_optional(storing: Path, stem: str, table: Table) -> dict[str, NDArray[np.float64]] | None:
    """Read a file ``<stem>.parquet`` or ``<stem>.csv`` of ids and numbers, if there is one.

    Parameters
    ----------
    storing
        The run's directory.
    stem
        The file's name without its ending.
    table
        The tournament table.

    Returns
    -------
    dict or None
        Column → its values in the table's order, float64, NaN for rows it does not have; None when there is no file.

    Raises
    ------
    BadDataError
        When it differs from its manifest (one without a manifest is taken as it is), cannot be read, or has no column
        ``id`` or no column of numbers.
    """
    path = next((path for ending in ("parquet", "csv") if (path := storing / f"{stem}.{ending}").is_file()), None)
    if path is None:
        return None
    outputs.verify(path, "unzip")
    try:
        found = pq.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error})") from error
    names = [field.name for field in found.schema if field.name not in _WORDS_BESIDE and _is_number(field.type)]
    if "id" not in found.column_names or not names:
        raise BadDataError(
            f"{path.name}: its columns are {', '.join(found.column_names)}; there must be 'id' and one of numbers"
        )
    return {name: _for_rows(table, found["id"], _numbers(found[name])) for name in names}


def _for_rows(table: Table, ids: pa.ChunkedArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Put values into the order of a table's rows; NaN for rows that have none."""
    ids = ids.cast(pa.string())
    if ids.equals(table.ids):
        return values
    positions = pc.index_in(table.ids, value_set=ids.combine_chunks())
    known = pc.is_valid(positions).to_numpy()
    rows = np.full(len(table), np.nan)
    rows[known] = values[pc.fill_null(positions, 0).to_numpy()[known]]
    return rows


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _numbers(column: pa.ChunkedArray) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = column.cast(pa.float64()).to_numpy().astype(np.float64)
    return numbers
