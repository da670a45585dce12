"""Reads a CSV file of the classic layout in batches; errors name row, column and value."""

from __future__ import annotations

import codecs
import csv
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.dataset.tables import KEYS, TableSchema, require_columns, require_unique_columns

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_BLOCK = 2**20
_LONGEST_HEADER = 2**20
_READ_BYTES = 4 * 2**20
_MISSING = ["", "NA", "NaN", "nan", "null", "NULL"]


class CsvSource:
    """One CSV file.

    Attributes
    ----------
    name : str
        File name for messages.
    columns : list of str
        The header.
    rows : int
        Number of rows, from the count of line ends.

    Raises
    ------
    BadInputError
        When the file is empty, is not UTF-8 text, has no data rows, or a column twice.
    """

    def __init__(self, path: Path) -> None:
        self.name = path.name
        self._path = path
        self.rows = _checked_line_count(path) - 1
        self.columns = _read_header(path)
        require_unique_columns(self.name, self.columns)
        if self.rows < 1:
            msg = f"{self.name}: there is a header but no row of data: download it again"
            raise BadInputError(msg)

    def read(self, schema: TableSchema) -> Iterator[Any]:
        """Yield all rows as record batches of ``schema.arrow_schema``, missing values as nulls.

        Raises
        ------
        BadInputError
            When a column is missing, a row has too many or too few values, or a value is not a number.
        """
        targets = dict.fromkeys(schema.targets.values(), pa.float32())
        wanted = {key: pa.string() for key in KEYS} | schema.features | targets
        for batch in self._batches(wanted):
            yield pa.RecordBatch.from_arrays(batch.columns, schema=schema.arrow_schema)

    def read_columns(self, texts: Collection[str], numbers: Collection[str]) -> Iterator[Any]:
        """Yield some columns of all rows as record batches: texts as strings, numbers as doubles."""
        yield from self._batches(dict.fromkeys(texts, pa.string()) | dict.fromkeys(numbers, pa.float64()))

    def read_text(self, column: str) -> Iterator[Any]:
        """Yield one text column as arrays of strings."""
        for batch in self._batches({column: pa.string()}):
            yield batch[column]

    def _batches(self, wanted: dict[str, Any]) -> Iterator[Any]:
        require_columns(self.name, wanted, self.columns)
        try:
            # only reading can fail here: a batch is complete when it is yielded
            with _open(self._path, wanted) as reader:
                yield from reader
        except pa.ArrowInvalid as error:
            raise self._diagnose(wanted, error) from None

    def _diagnose(self, wanted: dict[str, Any], error: Exception) -> BadInputError:
        """Read the file again, slowly, to find the first row, column and value that cannot be read."""
        ragged: list[Any] = []

        def record(row: Any) -> str:
            ragged.append(row)
            return "skip"

        first_row = 1
        try:
            with _open(self._path, dict.fromkeys(wanted, pa.string()), record) as reader:
                for batch in reader:
                    if ragged:
                        break
                    for name, kind in wanted.items():
                        if kind != pa.string() and (found := _first_not_a_number(batch[name], kind)) is not None:
                            return BadInputError(
                                f"{self.name}: row {first_row + found:,}, column {name!r}:"
                                f" {batch[name][found].as_py()!r} is not a number: repair the file or download it again"
                            )
                    first_row += batch.num_rows
        except pa.ArrowInvalid as second:
            error = second
        if ragged:
            # Arrow counts the header as row 1 and, like this module, ignores empty lines
            row = ragged[0]
            return BadInputError(
                f"{self.name}: row {row.number - 1:,} has {row.actual_columns} values, but the header has"
                f" {row.expected_columns}: {_truncate(row.text)}. Is it truncated, or is there an extra quote or comma?"
            )
        return BadInputError(f"{self.name}: cannot be read as CSV ({error}): repair the file or download it again")


@contextmanager
def _open(path: Path, wanted: dict[str, Any], on_invalid_row: Any = None) -> Iterator[Any]:
    # Arrow numbers rows only without threads
    options = pa_csv.ReadOptions(block_size=_READ_BYTES, use_threads=on_invalid_row is None)
    reader = pa_csv.open_csv(
        path,
        read_options=options,
        parse_options=pa_csv.ParseOptions(invalid_row_handler=on_invalid_row),
        convert_options=pa_csv.ConvertOptions(
            column_types=wanted,
            include_columns=list(wanted),
            null_values=_MISSING,
            strings_can_be_null=False,
        ),
    )
    try:
        yield reader
    finally:
        reader.close()


def _first_not_a_number(texts: Any, kind: Any) -> int | None:
    numbers = pc.if_else(pc.is_in(texts, value_set=pa.array(_MISSING)), "0", pc.utf8_trim_whitespace(texts))
    try:
        pc.cast(numbers, kind)
    except pa.ArrowInvalid:
        for index, number in enumerate(numbers):
            try:
                pc.cast(number, kind)
            except pa.ArrowInvalid:
                return index
    return None


def _checked_line_count(path: Path) -> int:
    """Count the lines of a file and check that it is UTF-8 text, in one pass."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            if b"\0" in block:
                line = lines + block[: block.index(b"\0")].count(b"\n") + 1
                msg = f"{path.name}: line {line:,} has a zero byte: this is not a CSV file in UTF-8 (perhaps UTF-16)"
                raise BadInputError(msg)
            try:
                decoder.decode(block, final=not block)
            except UnicodeDecodeError as error:
                # the decoder prepends up to three bytes of the previous block
                line = lines + error.object[: error.start].count(b"\n") + 1
                value = error.object[error.start]
                msg = f"{path.name}: line {line:,} is not UTF-8 (byte {value:#04x}): save the file as UTF-8"
                raise BadInputError(msg) from None
            if not block:
                break
            lines += block.count(b"\n")
            last = block[-1:]
    if last != b"\n":
        lines += 1
    if lines == 0:
        msg = f"{path.name}: the file is empty: download it again"
        raise BadInputError(msg)
    return lines


def _read_header(path: Path) -> list[str]:
    with path.open(encoding="utf-8-sig", newline="\n", errors="replace") as file:
        line = file.readline(_LONGEST_HEADER)
    if len(line) == _LONGEST_HEADER:
        msg = f"{path.name}: the first line is longer than {_LONGEST_HEADER:,} characters: this is not a CSV file"
        raise BadInputError(msg)
    try:
        return next(csv.reader([line.rstrip("\r\n")]), [])
    except csv.Error as error:
        msg = f"{path.name}: the header cannot be read ({error}): {_truncate(line)}"
        raise BadInputError(msg) from None


def _truncate(text: str, length: int = 60) -> str:
    return repr(text if len(text) <= length else text[:length] + "…")
