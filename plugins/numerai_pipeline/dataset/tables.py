"""The tables of datasets and runs: their schema, their statistics, and the writer.

The rows of both data layouts are converted to batches of one schema (:class:`TableSchema`), checked
(``row_checks.py``), counted, and written as parquet in row groups suited for streaming.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator
    from pathlib import Path
    from types import TracebackType

KEYS = ("id", "era", "data_type")
TRAINING_TYPES = ("train",)
TOURNAMENT_TYPES = ("validation", "test", "live")
VALIDATION_TYPES = ("validation",)
LIVE_TYPES = ("test", "live")
METADATA_KEY = b"numerai"

# small enough to stream in little memory, large enough that a table of thousands of columns keeps a small footer
ROW_GROUP_ROWS = 50_000
ROW_GROUP_BYTES = 128 * 2**20

TARGET = "target"
"""The column of the main target."""

_BATCH_BYTES = 8 * 2**20
_ERA_NUMBER = re.compile(r"(?:era)?(\d{1,9})")


@dataclass(frozen=True)
class TableSchema:
    """Schema of a table.

    Attributes
    ----------
    features : dict
        Name → type (``int8`` or ``float32``), in the source's order.
    target : str
        The source's name of the target; the column of the tables is always ``target``.
    feature_set : str
        Name of the feature set.
    source : str
        The run's source, such as ``numerai``.
    further_targets : tuple of str
        The source's names of further targets, which are also their columns; a live table has none.
    """

    features: dict[str, Any]
    target: str
    feature_set: str
    source: str
    further_targets: tuple[str, ...] = ()

    @property
    def targets(self) -> dict[str, str]:
        """Column of each target → the source's name."""
        return {TARGET: self.target, **{name: name for name in self.further_targets}}

    @property
    def arrow_schema(self) -> Any:
        """Arrow schema of the tables, with target, feature set and source as metadata."""
        about = {"target": self.target, "feature_set": self.feature_set, "source": self.source}
        return pa.schema(
            [(key, pa.string()) for key in KEYS]
            + [*self.features.items(), *((column, pa.float32()) for column in self.targets)],
            metadata={METADATA_KEY: json.dumps(about)},
        )

    @property
    def row_bytes(self) -> int:
        """Approximate memory of one row."""
        return _row_bytes(self.arrow_schema)

    @property
    def batch_rows(self) -> int:
        """Rows of a batch of a few MB."""
        return max(256, min(ROW_GROUP_ROWS, _BATCH_BYTES // self.row_bytes))


class RowSource(Protocol):
    """A raw file of rows."""

    name: str
    """File name for messages."""
    rows: int
    """Approximate number of rows."""

    @property
    def columns(self) -> Collection[str]:
        """Names of the columns, in the file's order."""

    def read(self, schema: TableSchema) -> Iterator[Any]:
        """Yield all rows as record batches of ``schema.arrow_schema``, missing values as nulls."""

    def read_columns(self, texts: Collection[str], numbers: Collection[str]) -> Iterator[Any]:
        """Yield some columns of all rows as record batches: texts as strings, numbers as doubles."""

    def read_text(self, column: str) -> Iterator[Any]:
        """Yield one text column (``id`` or ``era``) as arrays of strings."""


@dataclass
class TableStats:
    """Statistics of a table, collected while it is written.

    Attributes
    ----------
    rows : int
        Rows written.
    eras : set of str
        Their eras.
    data_types : Counter
        Data type → rows.
    missing : int
        Missing feature values (NaN).
    without_target : int
        Rows whose main target is unknown: dropped from a training table, NaN in a validation table.
    above, below : Counter
        Column of a target → rows where it is above or below 0.5: the two classes.
    newest : int
        Largest number of an era with a known target; 0 without any.
    """

    rows: int = 0
    eras: set[str] = field(default_factory=set)
    data_types: Counter[str] = field(default_factory=Counter)
    missing: int = 0
    without_target: int = 0
    above: Counter[str] = field(default_factory=Counter)
    below: Counter[str] = field(default_factory=Counter)
    newest: int = 0

    def count(self, batch: Any, targets: Iterable[str]) -> None:
        """Add the rows of a batch with these columns of targets."""
        self.rows += batch.num_rows
        self.eras.update(pc.unique(batch["era"]).to_pylist())
        for entry in pc.value_counts(batch["data_type"]).to_pylist():
            self.data_types[entry["values"]] += entry["counts"]
        for column in targets:
            self.above[column] += pc.sum(pc.greater(batch[column], 0.5)).as_py() or 0
            self.below[column] += pc.sum(pc.less(batch[column], 0.5)).as_py() or 0
        known = pc.unique(batch["era"].filter(is_known(batch[TARGET]))).to_pylist()
        self.newest = max([self.newest, *(era_number(era) or 0 for era in known)])


def is_known(values: Any) -> Any:
    """Return the mask of the values that are neither null nor NaN."""
    return pc.fill_null(pc.invert(pc.is_nan(values)), False)


def abbreviate(names: Iterable[str], most: int = 8) -> str:
    """Format the first names of a list for a message: ``id, era, feature1, … (53 in all)``."""
    listed = list(names)
    if len(listed) <= most:
        return ", ".join(listed) or "none"
    return f"{', '.join(listed[:most])}, … ({len(listed):,} in all)"


def era_number(era: str) -> int | None:
    """Parse the number of an era such as ``era12`` or ``0012``; None if it has none, such as ``eraX``."""
    match = _ERA_NUMBER.fullmatch(era)
    return int(match[1]) if match else None


def require_unique_columns(file: str, columns: Collection[str]) -> None:
    """Check that column names are unique."""
    repeated = [name for name, count in Counter(columns).items() if count > 1]
    if repeated:
        msg = f"{file}: column {repeated[0]!r} occurs more than once, so it is ambiguous: repair the file"
        raise BadInputError(msg)


def require_columns(file: str, wanted: Iterable[str], found: Collection[str]) -> None:
    """Check that a file has the wanted columns."""
    present = set(found)
    missing = [name for name in wanted if name not in present]
    if missing:
        columns = f"column {missing[0]!r} is" if len(missing) == 1 else f"columns {abbreviate(missing, 5)} are"
        msg = f"{file}: {columns} missing (found: {abbreviate(found)}). Is this a Numerai dataset?"
        raise BadInputError(msg)


def fill_missing(batch: Any) -> Any:
    """Replace null by NaN in features and targets, the only representation of a missing value in the tables."""
    columns = [
        pc.fill_null(column, float("nan")) if column.null_count and pa.types.is_floating(column.type) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)


def count_missing(batch: Any, schema: TableSchema) -> dict[str, int]:
    """Count missing values after :func:`fill_missing`: feature → count, for the features that have any."""
    floats = (name for name, kind in schema.features.items() if kind != pa.int8())
    counts = {name: pc.sum(pc.is_nan(batch[name])).as_py() or 0 for name in floats}
    return {name: count for name, count in counts.items() if count}


def _row_bytes(arrow_schema: Any) -> int:
    numbers: int = sum(kind.bit_width // 8 for kind in arrow_schema.types if kind != pa.string())
    return 60 + numbers


class TableWriter:
    """Writes batches as one parquet file in row groups of up to 50,000 rows and 128 MiB.

    Equal rows in equal order give equal bytes, independent of their batches. A row group is written in another thread,
    while its caller makes the next one.
    """

    def __init__(self, path: Path, arrow_schema: Any) -> None:
        self._group_rows = max(1, min(ROW_GROUP_ROWS, ROW_GROUP_BYTES // _row_bytes(arrow_schema)))
        self._schema = arrow_schema
        self._pending: list[Any] = []
        self._pending_rows = 0
        self._thread = ThreadPoolExecutor(1)
        self._written: Future[None] | None = None
        self._writer = pq.ParquetWriter(
            path,
            arrow_schema,
            compression="zstd",
            # ids are unique; statistics of thousands of features would enlarge the footer
            use_dictionary=[name for name in arrow_schema.names if name != "id"],
            write_statistics=[*KEYS, TARGET],
        )

    def write(self, batch: Any) -> None:
        """Write the next rows."""
        if batch.num_rows:
            self._pending.append(batch)
            self._pending_rows += batch.num_rows
        while self._pending_rows >= self._group_rows:
            self._flush(self._group_rows)

    def _flush(self, rows: int) -> None:
        table = pa.Table.from_batches(self._pending, schema=self._schema)
        self._wait()
        self._written = self._thread.submit(self._writer.write_table, table.slice(0, rows), row_group_size=rows)
        self._pending = table.slice(rows).to_batches()
        self._pending_rows -= rows

    def _wait(self) -> None:
        """Wait for the last row group, and raise its error."""
        if self._written is not None:
            self._written.result()

    def __enter__(self) -> TableWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None and self._pending_rows:
                self._flush(self._pending_rows)
            self._wait()
        finally:
            self._thread.shutdown()
            self._writer.close()
