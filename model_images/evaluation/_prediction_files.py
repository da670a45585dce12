"""The predictions in a run's directory: complete files are read, all others are reported with their errors.

A model that failed, or did not run, has no file there, or a file without a valid manifest. It is left out and reported:
an error of one model must not prevent the evaluation of the others.
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
_TEXT_COLUMNS = ("id", "era", "data_type")


class Entry(NamedTuple):
    """Predictions that are evaluated.

    Attributes
    ----------
    name : str
        Name of the model.
    kind : {"model", "ensemble", "reference"}
        A reference is a baseline for the models.
    predictions : numpy.ndarray of float64, shape (rows of the tournament table,)
        In its order; a reference is NaN where it has no prediction.
    """

    name: str
    kind: Kind
    predictions: NDArray[np.float64]


class PredictionSet(NamedTuple):
    """The predictions of a run.

    Attributes
    ----------
    entries : list of Entry
        Sorted by name.
    left_out : dict
        Name of a model → why its predictions are left out.
    """

    entries: list[Entry]
    left_out: dict[str, str]

    def of_kind(self, kind: Kind) -> list[Entry]:
        """Return the entries of one kind."""
        return [entry for entry in self.entries if entry.kind == kind]


def load_predictions(storing: Path, table: Table) -> PredictionSet:
    """Read all predictions of a run's directory.

    Parameters
    ----------
    storing
        The run's directory.
    table
        The tournament table; predictions must have its rows.

    Raises
    ------
    MissingInputError
        When no model has complete predictions.
    """
    found = PredictionSet([], {})
    for path in sorted((storing / FOLDER).glob("[!.]*.csv")):
        try:
            predictions = _read_predictions(path, table)
        except (BadDataError, OSError) as error:
            found.left_out[path.stem] = str(error)
        else:
            kind: Kind = "ensemble" if path.stem.startswith(ENSEMBLE_PREFIX) else "model"
            found.entries.append(Entry(path.stem, kind, predictions))
    if not found.of_kind("model"):
        reasons = "; ".join(f"{name}: {why}" for name, why in found.left_out.items()) or "the folder is empty"
        raise MissingInputError(
            f"{storing / FOLDER}: no model has predictions ({reasons}). Run at least one model first."
        )
    return found


def _read_predictions(path: Path, table: Table) -> NDArray[np.float64]:
    if not outputs.verify(path, path.stem):
        raise BadDataError(f"{path.name}: it has no manifest, so it is incomplete")
    types = dict(zip(HEADER, (pa.string(), pa.float64()), strict=True))
    try:
        found = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(column_types=types))
    except pa.ArrowException as error:
        raise BadDataError(f"{path.name}: it cannot be read as CSV ({error})") from error
    if tuple(found.column_names) != HEADER:
        raise BadDataError(f"{path.name}: its header is {','.join(found.column_names)!r}, not {','.join(HEADER)!r}")
    values = _for_rows(table, found["id"], _numbers(found["prediction"]))
    if len(found) != len(table) or np.isnan(values).any():
        raise BadDataError(f"{path.name}: it must have each id of {table.path.name} once, with a prediction")
    if not ((values > 0) & (values < 1)).all():
        raise BadDataError(f"{path.name}: its predictions are not all strictly between 0 and 1")
    return values


def read_optional(storing: Path, stem: str, table: Table) -> dict[str, NDArray[np.float64]] | None:
    """Read a file ``<stem>.parquet`` or ``<stem>.csv`` of ids and numbers, if it exists.

    Parameters
    ----------
    storing
        The run's directory.
    stem
        The file's name without its suffix.
    table
        The tournament table.

    Returns
    -------
    dict or None
        Column → its values in the table's order, float64, NaN for rows it does not have; None without a file.

    Raises
    ------
    BadDataError
        When it differs from its manifest (which is optional), cannot be read, or has no column ``id`` or no column of
        numbers.
    """
    path = next((path for suffix in ("parquet", "csv") if (path := storing / f"{stem}.{suffix}").is_file()), None)
    if path is None:
        return None
    outputs.verify(path, "unzip")
    try:
        found = pq.read_table(path) if path.suffix == ".parquet" else pa_csv.read_csv(path)
    except (pa.ArrowException, OSError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error})") from error
    names = [field.name for field in found.schema if field.name not in _TEXT_COLUMNS and _is_number(field.type)]
    if "id" not in found.column_names or not names:
        raise BadDataError(
            f"{path.name}: its columns are {', '.join(found.column_names)}; 'id' and a column of numbers are required"
        )
    return {name: _for_rows(table, found["id"], _numbers(found[name])) for name in names}


def _for_rows(table: Table, ids: pa.ChunkedArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Reorder values to a table's rows; NaN for rows without a value."""
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
