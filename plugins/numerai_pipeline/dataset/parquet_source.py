"""Reads a parquet file of today's layout by columns and in batches: the files are far larger than the memory."""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.dataset.tables import KEYS, TableSchema, require_columns, require_unique_columns
from numerai_pipeline.storage.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

# without a buffer, a whole chunk of each column is read at once: gigabytes for row groups of a million rows
_BUFFER_BYTES = 64 * 2**10
_TEXT_ROWS = 100_000
_SCAN_CELLS = 8 * 2**20
_INDEX = "__index_level_0__"


class ParquetSource:
    """One parquet file; use it as a context manager, since it keeps the file open.

    Attributes
    ----------
    name : str
        File name for messages.
    columns : dict
        Column → Arrow type, in the file's order. A pandas index of ids is listed as ``id``.
    rows : int
        Rows.

    Raises
    ------
    NotFoundError
        When the file does not exist.
    BadInputError
        When the file is not parquet, has no rows, or a column twice.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        with self._translate_corruption():
            try:
                self._file = pq.ParquetFile(
                    path,
                    memory_map=False,
                    buffer_size=_BUFFER_BYTES,
                    pre_buffer=False,
                    page_checksum_verification=True,
                )
            except FileNotFoundError:
                msg = f"{path} does not exist: run the download again"
                raise NotFoundError(msg) from None
            schema = self._file.schema_arrow
            self.rows: int = self._file.metadata.num_rows
            self._bytes = path.stat().st_size
        require_unique_columns(self.name, schema.names)
        self._id = "id" if "id" in schema.names or _INDEX not in schema.names else _INDEX
        self.columns: dict[str, Any] = {
            "id" if column.name == self._id else column.name: column.type for column in schema
        }
        if self.rows < 1:
            self.close()
            msg = f"{self.name}: the table has no rows: download it again"
            raise BadInputError(msg)

    def __enter__(self) -> ParquetSource:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close(force=True)

    def read(self, schema: TableSchema) -> Iterator[Any]:
        """Yield all rows as record batches of ``schema.arrow_schema``, missing values as nulls.

        Without the target's column, as in live data, the target is unknown in every row.

        Raises
        ------
        BadInputError
            When another column is missing or has an unusable type, or the file is damaged.
        """
        arrow_schema = schema.arrow_schema
        wanted = dict.fromkeys(KEYS, pa.string()) | schema.features
        if schema.target in self.columns:
            wanted |= dict.fromkeys(schema.targets.values(), pa.float32())
        self._check_types(wanted)
        rows = 0
        for batch in self._batches(wanted, schema.batch_rows):
            rows += batch.num_rows
            columns = batch.columns
            if len(columns) < len(arrow_schema):
                columns.append(pa.nulls(batch.num_rows, pa.float32()))
            yield pa.RecordBatch.from_arrays(columns, schema=arrow_schema)
        if rows != self.rows:
            msg = f"{self.name}: has {rows:,} rows, but its footer {self.rows:,}: it is damaged, download it again"
            raise BadInputError(msg)

    def read_columns(self, texts: Collection[str], numbers: Collection[str]) -> Iterator[Any]:
        """Yield some columns of all rows as record batches: texts as strings, numbers as doubles."""
        wanted = dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, pa.float64())
        self._check_types(wanted)
        yield from self._batches(wanted, _TEXT_ROWS)

    def read_text(self, column: str) -> Iterator[Any]:
        """Yield one text column as arrays of strings."""
        wanted = {column: pa.string()}
        self._check_types(wanted)
        for batch in self._batches(wanted, _TEXT_ROWS):
            yield batch[column]

    def columns_with_nulls(self, names: Collection[str], selected: Callable[[Any], Any] | None = None) -> set[str]:
        """Return the number columns that have missing values.

        Parameters
        ----------
        names : collection of str
            The columns to read.
        selected : callable, optional
            Returns the rows of a batch to search, by the column ``era``; all rows by default.

        Notes
        -----
        The values are read: the footer's statistics would be faster, but reading them from a damaged footer makes Arrow
        abort the process.
        """
        self._check_types(names)
        if not names:
            return set()
        types = {name: self.columns[name] for name in names}
        keys = {} if selected is None else {"era": pa.string()}
        progress = Progress(log, f"{self.name}: searching for missing values", self.rows, "rows")
        found: set[str] = set()
        for batch in self._batches(keys | types, max(256, _SCAN_CELLS // len(types))):
            rows = batch if selected is None else selected(batch)
            found.update(name for name in types if rows[name].null_count)
            progress.advance(batch.num_rows)
        return found

    def has_numbers(self, column: str) -> bool:
        """Check whether a column exists and has a type of numbers, or null: all values missing."""
        return column in self.columns and is_number(self.columns[column])

    def columns_equal_to(self, column: str, names: Collection[str]) -> list[str]:
        """Return the number columns that equal another one in its first rows, if it has values there."""
        kinds = dict.fromkeys([column, *names], pa.float32())
        self._check_types(kinds)
        first = next(self._batches(kinds, _TEXT_ROWS), None)
        if first is None or first[column].null_count == first.num_rows:
            return []
        return [name for name in names if first[name].equals(first[column])]

    def packed_bytes(self, names: Collection[str]) -> int:
        """Estimate the packed size of these columns in the file."""
        return self._bytes * len(names) // len(self.columns)

    def _check_types(self, names: Collection[str]) -> None:
        require_columns(self.name, names, self.columns)
        for name in names:
            kind = self.columns[name]
            if name in KEYS:
                if pa.types.is_null(kind):
                    msg = (
                        f"{self.name}: column {name!r} has the type null: it is empty in every row, but every row needs"
                        " a value: download the file again"
                    )
                    raise BadInputError(msg)
                if not _is_text(kind):
                    msg = f"{self.name}: column {name!r} has the type {kind}, but text was expected: repair the file"
                    raise BadInputError(msg)
            elif not is_number(kind):
                msg = f"{self.name}: column {name!r} has the type {kind}, but numbers were expected: repair the file"
                raise BadInputError(msg)

    def _batches(self, wanted: dict[str, Any], rows: int) -> Iterator[Any]:
        """Read columns in the given order, each as the given type."""
        stored = [self._id if name == "id" else name for name in wanted]
        with self._translate_corruption():
            for batch in self._file.iter_batches(batch_size=rows, columns=stored, use_threads=True):
                columns = [_cast(batch[name], kind) for name, kind in zip(stored, wanted.values(), strict=True)]
                yield pa.RecordBatch.from_arrays(columns, names=list(wanted))

    @contextmanager
    def _translate_corruption(self) -> Iterator[None]:
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, OverflowError, MemoryError) as error:
            # Arrow reports damage as an OSError without errno; an OSError with errno is the operating system's
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            msg = f"{self.name}: the parquet file is damaged or not parquet ({reason}): download it again"
            raise BadInputError(msg) from error


def _is_text(kind: Any) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_string_view(kind)
        or pa.types.is_integer(kind)
    )


def is_number(kind: Any) -> bool:
    """Check whether values of an Arrow type can be read as numbers.

    Writers give the type null to a column without any value: all of its values are missing.
    """
    return bool(
        pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)
    )


def _cast(column: Any, kind: Any) -> Any:
    if column.type != kind:
        # a double is rounded to float32; a double out of range becomes infinite and is rejected later
        column = pc.cast(column, kind, safe=False)
    if kind == pa.string():
        # a damaged file may hold invalid text
        column.validate(full=True)
    return column
