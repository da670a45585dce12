"""The predictions of a run's models: complete files are read, all others are reported with their errors.

A file of the folder ``validation/`` has a model's predictions of the validation table, a file of the same name in
``predictions/`` its predictions of the live rows. A model that failed, or did not run, has no file there, or a file
without a valid manifest. It is left out and reported: an error of one model must not prevent the evaluation of the
others. The fit of a model may be older than the validation table: a file without rows of the newest eras is complete.
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
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table, TableView

VALIDATION, LIVE = "validation", "predictions"
"""Folders, in the run's directory, of predictions of the validation table, and of the live rows."""
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
    predictions : numpy.ndarray of float64, shape (rows,)
        In the table's order; NaN where it has no prediction.
    """

    name: str
    kind: Kind
    predictions: NDArray[np.float64]


class PredictionSet(NamedTuple):
    """The predictions of a run.

    Attributes
    ----------
    entries : list of Entry
        Sorted by name, references last.
    values : numpy.ndarray of float64, shape (rows, entries)
        The predictions of all entries, each a column.
    left_out : dict
        Name of a model → why its predictions are left out.
    notes : list of str
        For the report: the predictions that are left out, and models without predictions of the newest eras.
    """

    entries: list[Entry]
    values: NDArray[np.float64]
    left_out: dict[str, str]
    notes: list[str]

    def of_kind(self, kind: Kind) -> list[Entry]:
        """Return the entries of one kind."""
        return [entry for entry in self.entries if entry.kind == kind]


def load_predictions(
    folder: Path,
    table: Table,
    *,
    may_lack_newest: bool = False,
    ensembles: bool = True,
    references: Sequence[Entry] = (),
) -> PredictionSet:
    """Read all predictions of a folder.

    Parameters
    ----------
    folder
        The folder ``validation`` or ``predictions`` of the run's directory.
    table
        The table whose rows the predictions must have.
    may_lack_newest
        Whether predictions may lack the rows of the newest eras.
    ensembles
        Whether to read the ensembles as well.
    references
        Further entries; a model of the same name replaces one.

    Raises
    ------
    MissingInputError
        When no model has complete predictions.
    """
    paths = [path for path in sorted(folder.glob("[!.]*.csv")) if ensembles or _kind(path) == "model"]
    # a column for each file, without copies: millions of rows of a dozen models are half a gigabyte
    values = np.empty((len(table), len(paths) + len(references)), order="F")
    named: list[tuple[str, Kind]] = []
    left_out: dict[str, str] = {}
    notes: list[str] = []
    for path in paths:
        column = values[:, len(named)]
        try:
            column[:] = _read_predictions(path, table, may_lack_newest=may_lack_newest)
        except (BadDataError, OSError) as error:
            left_out[path.stem] = str(error)
            notes.append(f"left out: {path.stem} ({error})")
            continue
        lacking = int(np.count_nonzero(np.isnan(column)))
        if lacking:
            notes.append(
                f"{path.stem}: its fit is older than {table.path.name}, and has no predictions of the newest "
                f"{lacking:,} of {len(table):,} rows"
            )
        named.append((path.stem, _kind(path)))
    if not any(kind == "model" for _, kind in named):
        reasons = "; ".join(f"{name}: {why}" for name, why in left_out.items()) or "the folder is empty"
        raise MissingInputError(f"{folder}: no model has predictions ({reasons}). Run at least one model first.")
    taken = {name for name, _ in named}
    for reference in references:
        if reference.name not in taken:
            values[:, len(named)] = reference.predictions
            named.append((reference.name, reference.kind))
    entries = [Entry(name, kind, values[:, column]) for column, (name, kind) in enumerate(named)]
    return PredictionSet(entries, values[:, : len(named)], left_out, notes)


def read_live_predictions(storing: Path, name: str, live: Table) -> NDArray[np.float64]:
    """Read a model's predictions of the live rows, in the table's order; shape (rows of `live`,).

    Raises
    ------
    MissingInputError
        When there is no such file.
    BadDataError
        When it is invalid or incomplete.
    """
    path = storing / LIVE / f"{name}.csv"
    if not path.is_file():
        raise MissingInputError(f"{path}: {name} has no predictions of the live rows. {outputs.rerun_hint(name)}")
    return _read_predictions(path, live, may_lack_newest=False)


def read_live_or_note(storing: Path, name: str, live: Table, notes: list[str]) -> NDArray[np.float64]:
    """Read a model's predictions of the live rows; none, with a note, where the file is invalid."""
    try:
        return read_live_predictions(storing, name, live)
    except MissingInputError:
        pass
    except (BadDataError, OSError) as error:
        notes.append(f"left out: the live predictions of {name} ({error})")
    return np.full(len(live), np.nan)


def _kind(path: Path) -> Kind:
    return "ensemble" if path.stem.startswith(ENSEMBLE_PREFIX) else "model"


def _read_predictions(path: Path, table: Table, *, may_lack_newest: bool) -> NDArray[np.float64]:
    """Read predictions of a table's rows, in its order; NaN for rows of the newest eras where they may lack."""
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
    present = ~np.isnan(values)
    if np.count_nonzero(present) != len(found):
        raise BadDataError(
            f"{path.name}: it must have each id of {table.path.name} once, with a prediction "
            f"({_describe_mismatch(found, table)})"
        )
    if not present.all() and not (may_lack_newest and _has_all_but_newest(table, present)):
        lacking = f"{np.count_nonzero(~present):,} of {len(table):,} rows of {table.path.name} are missing"
        raise BadDataError(f"{path.name}: {lacking}{', not only of the newest eras' if may_lack_newest else ''}")
    if not ((values[present] > 0) & (values[present] < 1)).all():
        raise BadDataError(f"{path.name}: its predictions are not all strictly between 0 and 1")
    return values


def _has_all_but_newest(table: Table, present: NDArray[np.bool_]) -> bool:
    """Check that every missing row is of a later era than all present rows."""
    numbers = table.era_numbers
    return bool(present.any()) and int(np.min(numbers[~present])) > int(np.max(numbers[present]))


def _describe_mismatch(found: pa.Table, table: Table) -> str:
    if np.isnan(_numbers(found["prediction"])).any():
        return "a prediction is missing"
    if pc.count_distinct(found["id"]).as_py() < len(found):
        return "an id appears twice"
    unknown = pc.index_in(found["id"].cast(pa.string()), value_set=table.ids.combine_chunks()).null_count
    return f"{unknown:,} of its ids are not in the table"


def read_optional(storing: Path, stem: str, table: TableView, column: str | None = None) -> NDArray[np.float64] | None:
    """Read a column of a file ``<stem>.parquet`` or ``<stem>.csv`` of ids and numbers, if it exists.

    Parameters
    ----------
    storing
        The run's directory.
    stem
        The file's name without its suffix.
    table
        The rows that are requested; the file may have others.
    column
        The column; by default the first of numbers.

    Returns
    -------
    numpy.ndarray of float64, shape (rows of the table,), or None
        In the table's order, NaN for rows without a value; None without a file.

    Raises
    ------
    BadDataError
        When it differs from its manifest (which is optional), cannot be read, or has no column ``id``, not this column,
        or no column of numbers.
    """
    path = next((path for suffix in ("parquet", "csv") if (path := storing / f"{stem}.{suffix}").is_file()), None)
    if path is None:
        return None
    outputs.verify(path, "unzip")
    try:
        schema = _schema(path)
        names = [field.name for field in schema if field.name not in _TEXT_COLUMNS and _is_number(field.type)]
        selected = names[0] if column is None and names else column
        if "id" not in schema.names or selected not in names:
            wanted = "a column of numbers" if column is None else f"{column!r}, a column of numbers,"
            raise BadDataError(
                f"{path.name}: its columns are {', '.join(schema.names)}; 'id' and {wanted} are required"
            )
        columns = ["id", selected]
        if path.suffix == ".parquet":
            found = pq.read_table(path, columns=columns)
        else:
            found = pa_csv.read_csv(path, convert_options=pa_csv.ConvertOptions(include_columns=columns))
    except (pa.ArrowException, OSError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error})") from error
    return _for_rows(table, found["id"], _numbers(found[selected]))


def _schema(path: Path) -> pa.Schema:
    if path.suffix == ".parquet":
        return pq.read_schema(path)
    with pa_csv.open_csv(path) as reader:
        return reader.schema


def _for_rows(table: TableView, ids: pa.ChunkedArray, values: NDArray[np.float64]) -> NDArray[np.float64]:
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
