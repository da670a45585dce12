"""The files that tables are read from: Parquet, and CSV for images of 2018, read by column and in batches."""

from __future__ import annotations

import csv
import os
from typing import TYPE_CHECKING, Protocol

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from numerai_contract import outputs
from numerai_contract.exits import BadDataError, MissingInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

# the text columns of a table; all others are numbers
TEXT_COLUMNS = ("id", "era", "data_type")
# the exceptions of Arrow for damaged or invalid bytes
_READ_ERRORS = (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError)
_MISSING_NUMBERS = ["", "NA", "NaN", "nan", "null", "NULL"]


class Source(Protocol):
    """A table on disk, before its content is validated."""

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The columns in the file's order, with the type of each when read."""

    def has_nulls(self, columns: Sequence[str]) -> bool:
        """Check whether any value of these columns is missing."""

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read these columns from the first row to the last, at most `rows` at a time."""


def open_source(path: Path) -> Source:
    """Open a table by its suffix, ``.parquet`` or ``.csv``.

    Raises
    ------
    MissingInputError
        When the file does not exist, or may not be read.
    BadDataError
        When it differs from its manifest, cannot be read in the format of its suffix, or a column appears twice.
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        message = (
            f"{path}: the file does not exist. Run the task that produces it (`unzip` for the run's tables) first."
        )
        raise MissingInputError(message) from error
    except (PermissionError, IsADirectoryError) as error:
        raise MissingInputError(
            f"{path}: it cannot be read by uid {os.getuid()} ({error.strerror}). Grant that user read permission."
        ) from error
    # before its content is read: "changed after it was written" is the better message than "cannot be read"
    outputs.verify(path)
    if path.suffix == ".parquet":
        return ParquetSource(path)
    if path.suffix == ".csv":
        return CsvSource(path)
    raise BadDataError(f"{path.name}: a table must be a .parquet or a .csv file.")


class ParquetSource:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # pre_buffer would hold whole row groups, and Numerai's largest file has only four
            self._file = pq.ParquetFile(path, pre_buffer=False)
            schema = self._file.schema_arrow
            names, types = schema.names, schema.types
            self._rows = self._file.metadata.num_rows
        except _READ_ERRORS as error:
            raise _unreadable(path, "Parquet", error) from error
        _require_unique_columns(path, names)
        self._columns = dict(zip(names, types))

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """See `Source`."""
        return self._columns

    def has_nulls(self, columns: Sequence[str]) -> bool:
        """See `Source`. Reads the values: Arrow crashes when it reads the statistics of a damaged footer."""
        return any(column.null_count for batch in self.batches(columns, 65_536) for column in batch.columns)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        found = 0
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=list(columns)):
                found += batch.num_rows
                yield batch
        except _READ_ERRORS as error:
            raise _unreadable(self._path, "Parquet", error) from error
        if found != self._rows:
            reason = ValueError(f"it has {found:,} rows, but its footer declares {self._rows:,}")
            raise _unreadable(self._path, "Parquet", reason)


class CsvSource:
    """A CSV file with a header. Numbers are read as float32, since its text does not define their type."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # "sig": spreadsheets mark UTF-8 by three bytes, which Arrow skips as well
            with path.open(encoding="utf-8-sig", newline="") as stream:
                names = next(csv.reader(stream), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise _unreadable(path, "CSV", error) from error
        _require_unique_columns(path, names)
        self._columns = {name: pa.string() if name in TEXT_COLUMNS else pa.float32() for name in names}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """See `Source`."""
        return self._columns

    def has_nulls(self, columns: Sequence[str]) -> bool:  # noqa: ARG002 (float32 columns can hold missing values)
        """See `Source`. Always true: columns are read as float32, which can hold missing values."""
        return True

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        convert = pa_csv.ConvertOptions(
            column_types=self._columns,
            include_columns=list(columns),
            null_values=_MISSING_NUMBERS,
            strings_can_be_null=False,
        )
        try:
            for batch in pa_csv.open_csv(self._path, convert_options=convert):
                for start in range(0, batch.num_rows, rows):
                    yield batch.slice(start, rows)
        except _READ_ERRORS as error:
            raise _unreadable(self._path, "CSV", error) from error


def _require_unique_columns(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise BadDataError(f"{path.name}: column {repeated[0]!r} appears more than once.")


def _unreadable(path: Path, form: str, error: Exception) -> Exception:
    # a lack of memory is an ArrowException as well, and not an error of the file
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    return BadDataError(
        f"{path.name}: it cannot be read as {form} ({error}). It may be truncated: clear the task `unzip` and run it "
        "again."
    )
