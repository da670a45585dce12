"""Files with values for each row, written by one operation and read by others; rows are matched by their id."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numerai_contract.tables import TableView


def write(path: Path, ids: pa.ChunkedArray, columns: Mapping[str, pa.Array], inputs: str | None) -> None:
    """Write a Parquet file with the column ``id`` and further columns, and its manifest.

    Parameters
    ----------
    path
        The path of the file.
    ids
        Shape (rows,).
    columns
        Each of shape (rows,).
    inputs
        For the manifest, see `numerai_contract.outputs.output`.
    """
    table = pa.table({"id": ids, **columns})
    with outputs.output(path, rows=table.num_rows, columns=table.column_names, inputs=inputs) as part:
        pq.write_table(table, part)


def load_aligned(
    table: TableView, path: Path, columns: Sequence[str], *, producer: str, texts: Sequence[str] = ()
) -> dict[str, pa.ChunkedArray]:
    """Read columns for the rows of a table, in the table's order.

    Parameters
    ----------
    table
        The table whose rows are requested; the file may have more rows.
    path
        A file written by `write`.
    columns
        Names of the columns to read.
    producer
        The task that produces the file, for messages.
    texts
        Names of the text columns; the others are floating point numbers.

    Returns
    -------
    dict
        Column → values, each of shape (rows of the table,), without missing values.

    Raises
    ------
    MissingInputError
        When the file or its manifest does not exist.
    BadDataError
        When it differs from its manifest, lacks a column, a row or a value, or a column has another type.
    """
    if not path.is_file() or not outputs.verify(path, producer):
        raise MissingInputError(f"{path}: the file does not exist, or is incomplete. {outputs.rerun_hint(producer)}")
    try:
        found = pq.read_table(path, columns=["id", *columns])
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error}). {outputs.rerun_hint(producer)}") from error
    missing = [name for name in ("id", *columns) if name not in found.column_names]
    if missing:
        raise BadDataError(f"{path.name}: column {missing[0]!r} is missing. {outputs.rerun_hint(producer)}")
    for name, kind in zip(found.schema.names, found.schema.types):
        valid = pa.types.is_string(kind) if name in ("id", *texts) else pa.types.is_floating(kind)
        if not valid or found.schema.names.count(name) > 1:
            expected = "text" if name in ("id", *texts) else "numbers"
            raise BadDataError(
                f"{path.name}: column {name!r} is not one column of {expected}. {outputs.rerun_hint(producer)}"
            )
    rows = _in_order(found, table.ids)
    if rows is None:
        positions = pc.index_in(table.ids, value_set=found["id"].combine_chunks())
        if positions.null_count:
            row = pc.index(pc.is_null(positions), True).as_py()
            raise BadDataError(
                f"{path.name}: {positions.null_count:,} of the {len(table):,} rows of {table.path.name} are missing, "
                f"the first is {table.describe_row(row)}. {outputs.rerun_hint(producer)}"
            )
        rows = found.select(list(columns)).take(positions)
    for name in columns:
        if rows[name].null_count or (pa.types.is_floating(rows[name].type) and pc.any(pc.is_nan(rows[name])).as_py()):
            raise BadDataError(f"{path.name}: column {name!r} is empty in some rows. {outputs.rerun_hint(producer)}")
    return {name: rows[name] for name in columns}


def _in_order(found: pa.Table, ids: pa.ChunkedArray) -> pa.Table | None:
    """Return the file's rows of the ids where they follow each other in the same order, as is usual; else None.

    A lookup of millions of ids takes seconds and a hash table of all.
    """
    start = pc.index(found["id"], ids[0]).as_py()
    rows = found.slice(max(start, 0), len(ids))
    return rows if rows["id"].equals(ids) else None
