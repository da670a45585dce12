"""Predictions as a model left them: checked against the tournament table before anything is built on them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.manifests import (
    Manifest,
    atomic_path,
    manifest_path,
    read_manifest,
    require_whole,
    verified_manifest,
    write_manifest,
)
from numerai_pipeline.number_format import exact_text

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["id", "prediction"]
LEGACY_COLUMNS = ["id", "probability"]  # the form of 2018
LEAST_SPREAD = 1e-6
_PLAIN = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")


def accept_predictions(predictions: Path, tournament: Path, *, inputs: str) -> Manifest:
    """Check a model's predictions and return their manifest.

    An image that knows only the form of 2018 is served too: its column ``probability`` is renamed and the manifest it
    does not write is written for it.

    Parameters
    ----------
    predictions : Path
        CSV with the header ``id,prediction``.
    tournament : Path
        The table whose rows were to be predicted.
    inputs : str
        Hash of what the predictions were made from, for the manifest.

    Raises
    ------
    BadInputError
        Naming the file, and the row or the id, when the ids are not exactly the tournament's in its order, a value
        is missing or not strictly between 0 and 1, or all values are (almost) the same. The file stays for whoever
        wants to look at it, without a manifest, so that it counts for nothing.
    """
    try:
        return _accepted(predictions, tournament, inputs)
    except BadInputError:
        # a container may have written one of its own: the next try must not find them finished
        manifest_path(predictions).unlink(missing_ok=True)
        raise


def _accepted(predictions: Path, tournament: Path, inputs: str) -> Manifest:
    if not predictions.is_file():
        msg = f"{predictions.name}: the container ended well but left no predictions there"
        raise BadInputError(msg)
    if read_manifest(predictions) is not None and verified_manifest(predictions, inputs=inputs) is None:
        msg = f"{predictions.name}: the file is not the one its manifest describes; run the task again"
        raise BadInputError(msg)
    table = _read(predictions)
    try:
        _check_ids(predictions.name, table["id"].combine_chunks(), _tournament_ids(tournament))
    except BadInputError:
        if read_manifest(tournament) is not None:  # a model must not be blamed for what happened to the table
            require_whole(tournament, "`unzip`")
        raise
    _check_values(predictions.name, table)
    if table.column_names == LEGACY_COLUMNS:
        with atomic_path(predictions) as temporary:
            pa.csv.write_csv(table.rename_columns(COLUMNS), temporary, _PLAIN)
        return write_manifest(predictions, rows=table.num_rows, columns=COLUMNS, inputs=inputs)
    manifest = verified_manifest(predictions, inputs=inputs)
    return manifest or write_manifest(predictions, rows=table.num_rows, columns=COLUMNS, inputs=inputs)


def _read(predictions: Path) -> pa.Table:
    types = {"id": pa.string(), "prediction": pa.float64(), "probability": pa.float64()}
    try:
        table = pa.csv.read_csv(predictions, convert_options=pa.csv.ConvertOptions(column_types=types))
        header = table.column_names  # read only now, and perhaps no text
    except (pa.ArrowException, ValueError) as error:
        msg = f"{predictions.name}: not a CSV of predictions: {error}"
        raise BadInputError(msg) from None
    if header not in (COLUMNS, LEGACY_COLUMNS):
        msg = f"{predictions.name}: the header is {','.join(header)!r}, not {','.join(COLUMNS)!r}"
        raise BadInputError(msg)
    return table


def _tournament_ids(tournament: Path) -> pa.StringArray:
    try:
        # not read_table, whose machinery for data sets takes a quarter of a second to import
        with pq.ParquetFile(tournament) as file:
            return file.read(columns=["id"])["id"].cast(pa.string()).combine_chunks()
    except (pa.ArrowException, ValueError, OSError, LookupError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        msg = f"{tournament.name}: cannot be read ({error}): clear `unzip` and run it again"
        raise BadInputError(msg) from error


def _check_ids(name: str, ids: pa.StringArray, expected: pa.StringArray) -> None:
    if ids.equals(expected):
        return
    missing = pc.filter(expected, pc.invert(pc.is_in(expected, ids)))
    if len(missing):
        msg = f"{name}: {len(missing)} of {len(expected)} tournament ids have no prediction, the first is {missing[0]}"
        raise BadInputError(msg)
    if len(ids) != len(expected):
        msg = f"{name}: {len(ids)} rows for {len(expected)} tournament ids: some id is there twice or unknown"
        raise BadInputError(msg)
    row = pc.index(pc.not_equal(ids, expected), value=True).as_py()
    msg = f"{name}: row {row + 1} has id {ids[row]} where the tournament table has {expected[row]}: keep its order"
    raise BadInputError(msg)


def first_outside(values: Any) -> tuple[int, str] | None:
    """Find the first value (of a pyarrow array) that is not strictly between 0 and 1.

    Returns
    -------
    (int, str) or None
        Its place, from 0, and what is there in words; None when all are inside.
    """
    numbers = len(values) > values.null_count and not pc.any(pc.is_nan(values)).as_py()
    ends = pc.min_max(values).as_py()
    if numbers and not values.null_count and ends["min"] > 0 and ends["max"] < 1:
        # as it should be. What follows compares with a value of Python's, for which pyarrow imports pandas (0.2 s)
        return None
    inside = pc.fill_null(pc.and_(pc.greater(values, 0.0), pc.less(values, 1.0)), fill_value=False)
    row: int = pc.index(inside, value=False).as_py()
    if row < 0:
        return None
    return row, f"the prediction {exact_text(values[row])}" if values[row].is_valid else "no prediction"


def _check_values(name: str, table: pa.Table) -> None:
    values = table.column(1).combine_chunks()
    outside = first_outside(values)
    if outside is not None:
        row, found = outside
        msg = f"{name}: row {row + 1} (id {table['id'][row]}) has {found}: it must lie strictly between 0 and 1"
        raise BadInputError(msg)
    if len(values) > 1 and pc.stddev(values).as_py() < LEAST_SPREAD:
        msg = f"{name}: all predictions are (almost) {exact_text(values[0])}: the model has found no signal"
        raise BadInputError(msg)
