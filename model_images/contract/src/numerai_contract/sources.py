"""Where tables come from: Parquet files, and CSV files for images of the old days, read column by column in batches."""

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

# the columns of a table that are text; all others are numbers
TEXT_COLUMNS = ("id", "era", "data_type")
# what Arrow lets out when bytes are damaged or made up
_DAMAGE = (pa.ArrowException, OSError, ValueError, LookupError, ArithmeticError)
_MISSING_NUMBERS = ["", "NA", "NaN", "nan", "null", "NULL"]


class Source(Protocol):
    """A table on disk, before anything is known about its content."""

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """The columns in the file's order, with the type each is read as."""

    def lacks_values(self, columns: Sequence[str]) -> bool:
        """Say whether any value of these columns is absent."""

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """Read these columns from the first row to the last, at most `rows` at a time."""


def open_source(path: Path) -> Source:
    """Open a table by its suffix, ``.parquet`` or ``.csv``.

    Raises
    ------
    MissingInputError
        When there is no such file, or it may not be read.
    BadDataError
        When it differs from its manifest, cannot be read as what its suffix says, or a column appears twice.
    """
    try:
        with path.open("rb"):
            pass
    except FileNotFoundError as error:
        message = f"{path}: there is no such file. Run the task that makes it (`unzip` for the run's tables) first."
        raise MissingInputError(message) from error
    except (PermissionError, IsADirectoryError) as error:
        raise MissingInputError(
            f"{path}: it cannot be read by uid {os.getuid()} ({error.strerror}). Give that user the right to read it."
        ) from error
    # before its content is looked at: "changed since it was written" says more than "cannot be read"
    outputs.verify(path)
    if path.suffix == ".parquet":
        return ParquetSource(path)
    if path.suffix == ".csv":
        return CsvSource(path)
    raise BadDataError(f"{path.name}: a table is a .parquet or a .csv file.")


class ParquetSource:
    """A Parquet file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # pre_buffer would hold whole row groups, of which Numerai's largest file has four
            self._file = pq.ParquetFile(path, pre_buffer=False)
            schema = self._file.schema_arrow
            names, types = schema.names, schema.types
            self._rows = self._file.metadata.num_rows
        except _DAMAGE as error:
            raise _unreadable(path, "Parquet", error) from error
        _refuse_repeated(path, names)
        self._columns = dict(zip(names, types))

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """See `Source`."""
        return self._columns

    def lacks_values(self, columns: Sequence[str]) -> bool:
        """See `Source`. Read from the values: Arrow's way to the statistics of a damaged footer ends the process."""
        return any(column.null_count for batch in self.batches(columns, 65_536) for column in batch.columns)

    def batches(self, columns: Sequence[str], rows: int) -> Iterator[pa.RecordBatch]:
        """See `Source`."""
        found = 0
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=list(columns)):
                found += batch.num_rows
                yield batch
        except _DAMAGE as error:
            raise _unreadable(self._path, "Parquet", error) from error
        if found != self._rows:
            reason = ValueError(f"it has {found:,} rows, and its footer says {self._rows:,}")
            raise _unreadable(self._path, "Parquet", reason)


class CsvSource:
    """A CSV file with a header. Numbers are read as float32, since its text does not say how they were meant."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            # "sig": spreadsheets mark UTF-8 by three bytes, which Arrow passes over as well
            with path.open(encoding="utf-8-sig", newline="") as stream:
                names = next(csv.reader(stream), [])
        except (UnicodeDecodeError, csv.Error) as error:
            raise _unreadable(path, "CSV", error) from error
        _refuse_repeated(path, names)
        self._columns = {name: pa.string() if name in TEXT_COLUMNS else pa.float32() for name in names}

    @property
    def columns(self) -> dict[str, pa.DataType]:
        """See `Source`."""
        return self._columns

    def lacks_values(self, columns: Sequence[str]) -> bool:  # noqa: ARG002 (a floating point column can tell for itself)
        """See `Source`: float32 has room for absent values, so nobody needs to know beforehand."""
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
        except _DAMAGE as error:
            raise _unreadable(self._path, "CSV", error) from error


def _refuse_repeated(path: Path, names: Sequence[str]) -> None:
    repeated = sorted({name for name in names if names.count(name) > 1}) if len(set(names)) < len(names) else []
    if repeated:
        raise BadDataError(f"{path.name}: column {repeated[0]!r} appears more than once.")


def _unreadable(path: Path, form: str, error: Exception) -> Exception:
    # out of memory is an ArrowException too, and not the file's fault
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None):
        return error
    return BadDataError(
        f"{path.name}: it cannot be read as {form} ({error}). It may have been cut short: clear the task `unzip` and "
        "run it again."
    )
