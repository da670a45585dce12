"""Checks a model's predictions against the rows of their table before other tasks use them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.number_format import exact_text
from numerai_pipeline.storage.manifests import (
    Manifest,
    atomic_path,
    manifest_path,
    read_manifest,
    require_whole,
    verified_manifest,
    write_manifest,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

COLUMNS = ["id", "prediction"]
LEGACY_COLUMNS = ["id", "probability"]  # the form of 2018
MIN_STD = 1e-6
_PLAIN = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")


def validate_predictions(predictions: Path, *tables: Path) -> Manifest:
    """Check a model's predictions and return their manifest.

    The format of 2018 is accepted: its column ``probability`` is renamed and its missing manifest is written.

    Parameters
    ----------
    predictions : Path
        CSV with the header ``id,prediction``.
    *tables : Path
        The tables with the rows to predict, one after the other.

    Raises
    ------
    BadInputError
        Naming the file, and the row or the id, when the ids are not exactly the table's in its order, a value
        is missing or not strictly between 0 and 1, or all values are (almost) equal. The file is kept for inspection,
        without a manifest, so that no task uses it.
    """
    try:
        return _validated(predictions, tables)
    except BadInputError:
        # the container may have written a manifest: the next attempt must not treat the predictions as finished
        manifest_path(predictions).unlink(missing_ok=True)
        raise


def _validated(predictions: Path, tables: Sequence[Path]) -> Manifest:
    if not predictions.is_file():
        msg = f"{predictions.name}: the container succeeded without writing this file"
        raise BadInputError(msg)
    manifest = verified_manifest(predictions)
    if manifest is None and read_manifest(predictions) is not None:
        msg = f"{predictions.name}: the file does not match its manifest; run the task again"
        raise BadInputError(msg)
    table = _read(predictions)
    try:
        expected = pa.concat_arrays([_ids_of(each) for each in tables])
        _check_ids(predictions.name, table["id"].combine_chunks(), expected)
    except BadInputError:
        for each in tables:
            if read_manifest(each) is not None:  # the table may be damaged, not the predictions
                require_whole(each, "`unzip`")
        raise
    _check_values(predictions.name, table)
    if table.column_names == LEGACY_COLUMNS:
        with atomic_path(predictions) as temporary:
            pa.csv.write_csv(table.rename_columns(COLUMNS), temporary, _PLAIN)
        return write_manifest(predictions, rows=table.num_rows, columns=COLUMNS)
    return manifest or write_manifest(predictions, rows=table.num_rows, columns=COLUMNS)


def split_predictions(predictions: Path, parts: Mapping[Path, Path]) -> None:
    """Write the predictions of some tables' rows to files of their own, each with its manifest.

    Parameters
    ----------
    predictions : Path
        Validated predictions; they have the rows of all tables, one table after the other.
    parts : mapping
        File to write → its table, in the order of the rows.
    """
    table = _read(predictions)
    start = 0
    for path, of_table in parts.items():
        count = len(_ids_of(of_table))
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            pa.csv.write_csv(table.slice(start, count), temporary, _PLAIN)
        write_manifest(path, rows=count, columns=COLUMNS)
        start += count


def _read(predictions: Path) -> pa.Table:
    types = {"id": pa.string(), "prediction": pa.float64(), "probability": pa.float64()}
    try:
        table = pa.csv.read_csv(predictions, convert_options=pa.csv.ConvertOptions(column_types=types))
        header = table.column_names  # decoded here, and perhaps not text
    except (pa.ArrowException, ValueError) as error:
        msg = f"{predictions.name}: not a CSV of predictions: {error}"
        raise BadInputError(msg) from None
    if header not in (COLUMNS, LEGACY_COLUMNS):
        msg = f"{predictions.name}: the header is {','.join(header)!r}, not {','.join(COLUMNS)!r}"
        raise BadInputError(msg)
    return table


def _ids_of(table: Path) -> pa.StringArray:
    try:
        # not read_table: it imports pyarrow.dataset, which takes a quarter of a second
        with pq.ParquetFile(table) as file:
            return file.read(columns=["id"])["id"].cast(pa.string()).combine_chunks()
    except (pa.ArrowException, ValueError, OSError, LookupError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        msg = f"{table.name}: cannot be read ({error}): clear `unzip` and run it again"
        raise BadInputError(msg) from error


def _check_ids(name: str, ids: pa.StringArray, expected: pa.StringArray) -> None:
    if ids.equals(expected):
        return
    missing = pc.filter(expected, pc.invert(pc.is_in(expected, ids)))
    if len(missing):
        msg = (
            f"{name}: {len(missing)} of {len(expected)} ids of the table have no prediction, the first is {missing[0]}"
        )
        raise BadInputError(msg)
    if len(ids) != len(expected):
        msg = f"{name}: {len(ids)} rows for {len(expected)} ids of the table: an id is duplicated or unknown"
        raise BadInputError(msg)
    row = pc.index(pc.not_equal(ids, expected), value=True).as_py()
    msg = f"{name}: row {row + 1} has id {ids[row]} where the table has {expected[row]}: keep its order"
    raise BadInputError(msg)


def first_out_of_range(values: Any) -> tuple[int, str] | None:
    """Find the first value (of a pyarrow array) that is not strictly between 0 and 1.

    Returns
    -------
    (int, str) or None
        Its 0-based index and its description; None if all values are in range.
    """
    numbers = len(values) > values.null_count and not pc.any(pc.is_nan(values)).as_py()
    ends = pc.min_max(values).as_py()
    if numbers and not values.null_count and ends["min"] > 0 and ends["max"] < 1:
        # the common case; the comparison below with a Python value makes pyarrow import pandas (0.2 s)
        return None
    inside = pc.fill_null(pc.and_(pc.greater(values, 0.0), pc.less(values, 1.0)), fill_value=False)
    row: int = pc.index(inside, value=False).as_py()
    if row < 0:
        return None
    return row, f"the prediction {exact_text(values[row])}" if values[row].is_valid else "no prediction"


def _check_values(name: str, table: pa.Table) -> None:
    values = table.column(1).combine_chunks()
    outside = first_out_of_range(values)
    if outside is not None:
        row, found = outside
        msg = f"{name}: row {row + 1} (id {table['id'][row]}) has {found}: it must lie strictly between 0 and 1"
        raise BadInputError(msg)
    if len(values) > 1 and pc.stddev(values).as_py() < MIN_STD:
        msg = f"{name}: all predictions are (almost) {exact_text(values[0])}: the model has found no signal"
        raise BadInputError(msg)
