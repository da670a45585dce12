"""Files that say something of each row: written by one operation, read by others, each row found by its id."""

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

    from numerai_contract.tables import Table


def write(path: Path, ids: pa.ChunkedArray, columns: Mapping[str, pa.Array], inputs: str | None) -> None:
    """Write a Parquet file with the column ``id`` and these, and its manifest.

    Parameters
    ----------
    path
        Where to.
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


def read_for(
    table: Table, path: Path, columns: Sequence[str], *, made_by: str, texts: Sequence[str] = ()
) -> dict[str, pa.ChunkedArray]:
    """Read columns for the rows of a table, in the table's order.

    Parameters
    ----------
    table
        Whose rows are wanted; the file may have more.
    path
        A file that `write` wrote.
    columns
        Which of its columns.
    made_by
        The task that makes the file, for messages.
    texts
        Which of the columns are text; the others are floating point numbers.

    Returns
    -------
    dict
        Column → values, each of shape (rows of the table,), none of them missing.

    Raises
    ------
    MissingInputError
        When there is no such file, or no manifest that says it is whole.
    BadDataError
        When it differs from its manifest, lacks a column, a row or a value, or a column is of another kind.
    """
    if not path.is_file() or not outputs.verify(path, made_by):
        raise MissingInputError(f"{path}: there is no such file, or it was never finished. {outputs.rerun(made_by)}")
    try:
        found = pq.read_table(path, columns=["id", *columns])
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise BadDataError(f"{path.name}: it cannot be read ({error}). {outputs.rerun(made_by)}") from error
    lacking = [name for name in ("id", *columns) if name not in found.column_names]
    if lacking:
        raise BadDataError(f"{path.name}: column {lacking[0]!r} is missing. {outputs.rerun(made_by)}")
    for name, kind in zip(found.schema.names, found.schema.types):
        good = pa.types.is_string(kind) if name in ("id", *texts) else pa.types.is_floating(kind)
        if not good or found.schema.names.count(name) > 1:
            wanted = "text" if name in ("id", *texts) else "numbers"
            raise BadDataError(f"{path.name}: column {name!r} is not one column of {wanted}. {outputs.rerun(made_by)}")
    positions = pc.index_in(table.ids, value_set=found["id"].combine_chunks())
    if positions.null_count:
        row = pc.index(pc.is_null(positions), True).as_py()
        raise BadDataError(
            f"{path.name}: {positions.null_count:,} of the {len(table):,} rows of {table.path.name} are not in it, the "
            f"first is {table.describe_row(row)}. {outputs.rerun(made_by)}"
        )
    rows = found.take(positions)
    for name in columns:
        if rows[name].null_count or (pa.types.is_floating(rows[name].type) and pc.any(pc.is_nan(rows[name])).as_py()):
            raise BadDataError(f"{path.name}: column {name!r} is empty in some rows. {outputs.rerun(made_by)}")
    return {name: rows[name] for name in columns}
