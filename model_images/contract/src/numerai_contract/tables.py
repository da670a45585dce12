"""The run's two tables: validated when opened; their features are read when needed.

A table has the columns ``id``, ``era``, ``data_type``, ``feature*`` and ``target``, and may have further targets
(``target_*``). All but the features are small and are read and validated at once, a further target when it is needed;
the features, which can be larger than the memory, are read in batches, and keep their type: int8 stays int8 unless
values are missing, every other type becomes float32 with NaN where a value is missing.
"""

from __future__ import annotations

import copy
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from numerai_contract.exits import BadDataError
from numerai_contract.sources import TEXT_COLUMNS, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import DTypeLike, NDArray

    from numerai_contract.sources import Source

# the number of an unknown era (eraX)
NO_ERA = -1
# the column of the main target
TARGET = "target"
# a missing value among int8 features
MISSING = -128
DATA_TYPES = ("train", "validation", "test", "live")

_ERA = re.compile(r"(?:era)?(\d{1,9}|X)", re.IGNORECASE)
# Begins the name of an era in data until 2021: a month, longer than targets look ahead. Numerai's forum, "Super Massive
# Data Release: Deep Dive".
_MONTH = "era"
# size of a batch of features, in bytes of float32
_BATCH_BYTES = 32 << 20
_ROWS_AT_A_TIME = 65_536
_MAX_NAMES_IN_MESSAGE = 8


class Table:
    """A table whose features stay on disk.

    Parameters
    ----------
    path
        A ``.parquet`` or ``.csv`` file. It must match its manifest, if it has one.
    feature_names
        The features to read, in this order, such as the training table's; by default all, in the file's order. With
        none of them, no feature is read.
    feature_dtype
        Type of the features; float32 spares a check of all values. By default int8 where all features have this type
        and no value is missing, else float32.

    Attributes
    ----------
    path : pathlib.Path
        Path of the file.
    ids : pyarrow.ChunkedArray of string
        Unique, shape (rows,).
    era_numbers : numpy.ndarray of int32, shape (rows,)
        Sortable: 12 for ``era12`` and ``0012``, `NO_ERA` for ``eraX``.
    eras_are_weeks : bool
        Whether era numbers count weeks, by the names: ``0012``, and not ``era12``, which is a month.
    targets : numpy.ndarray of float32, shape (rows,)
        In [0, 1], NaN where unknown.
    target_name : str
        Their column.
    feature_names : tuple of str
        The columns of `features`, in order.
    feature_dtype : numpy.dtype
        int8 or float32.

    Raises
    ------
    MissingInputError
        When the file does not exist.
    BadDataError
        When it violates the contract; the message names file, column and row (counted from 1).
    """

    def __init__(
        self, path: Path, feature_names: Sequence[str] | None = None, feature_dtype: DTypeLike | None = None
    ) -> None:
        self.path = path
        self._source = open_source(path)
        _require_columns(path, self._source, feature_names)
        self.feature_names = tuple(
            [name for name in self._source.columns if name.startswith("feature")]
            if feature_names is None
            else feature_names
        )
        small = _read_columns(path, self._source, {**dict.fromkeys(TEXT_COLUMNS, pa.string()), TARGET: pa.float32()})
        self.ids: pa.ChunkedArray = small["id"]
        if not len(self.ids):
            raise BadDataError(f"{path.name}: the table has no rows. Clear the task `unzip` and run it again.")
        _check_ids(path, self.ids)
        self.era_numbers = _era_numbers(path, small["era"])
        self.eras_are_weeks = not pc.any(pc.starts_with(small["era"], _MONTH, ignore_case=True)).as_py()
        self._data_types = _data_type_codes(path, small["data_type"])
        self.target_name = TARGET
        self.targets = _targets(path, TARGET, small[TARGET], self.ids)
        self.feature_dtype = np.dtype(self._narrowest_dtype() if feature_dtype is None else feature_dtype)

    def __len__(self) -> int:
        return len(self.ids)

    def with_features(self, names: Sequence[str]) -> Table:
        """Return the same table with some of its features only, in the given order."""
        selected = copy.copy(self)
        selected.__dict__.pop("holds_int8", None)
        selected.feature_names = tuple(names)
        return selected

    def without_targets(self, rows: NDArray[np.bool_]) -> Table:
        """Return the same table with unknown targets in the marked rows, shape (rows,)."""
        changed = copy.copy(self)
        changed.targets = np.where(rows, np.float32(np.nan), self.targets)
        return changed

    def with_target(self, name: str) -> Table:
        """Return the same table with the target of another column, such as ``target_cyrusd_60``.

        Raises
        ------
        BadDataError
            When the column is missing, or a value is not a number, or outside [0, 1].
        """
        if name == self.target_name:
            return self
        _require_numbers(self.path, self._source.columns, [name])
        selected = copy.copy(self)
        selected.target_name = name
        selected.targets = _targets(
            self.path, name, _read_columns(self.path, self._source, {name: pa.float32()})[name], self.ids
        )
        return selected

    @cached_property
    def holds_int8(self) -> bool:
        """Whether all features are whole numbers from -127 to 127, or missing; reads those not stored as int8."""
        others = [name for name in self.feature_names if self._source.columns[name] != pa.int8()]
        return not others or all(_are_int8(batch) for batch in self._source.batches(others, _ROWS_AT_A_TIME))

    def of_type(self, data_type: str) -> NDArray[np.bool_]:
        """Mark the rows of a data type, one of `DATA_TYPES`; shape (rows,)."""
        marks: NDArray[np.bool_] = self._data_types == DATA_TYPES.index(data_type)
        return marks

    def features(self, rows: NDArray[np.bool_] | None = None) -> NDArray[np.int8] | NDArray[np.float32]:
        """Read the features into memory.

        Parameters
        ----------
        rows
            Marks of the rows to read, shape (rows,); by default all. Only these are held in memory.

        Returns
        -------
        numpy.ndarray of `feature_dtype`, shape (rows read, features)
        """
        return _read_features(self, rows)

    def int8_features(self, rows: NDArray[np.bool_] | None = None) -> NDArray[np.int8]:
        """Read features that are whole numbers (`holds_int8`) into a quarter of the memory.

        Parameters
        ----------
        rows
            See `features`.

        Returns
        -------
        numpy.ndarray of int8, shape (rows read, features)
            `MISSING` where a value is missing.
        """
        return _read_features(self, rows, as_int8=True)

    def batches(
        self, rows: NDArray[np.bool_] | None = None, *, as_int8: bool = False
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int8] | NDArray[np.float32]]]:
        """Read the features a batch of rows at a time, in the table's order.

        Parameters
        ----------
        rows
            Marks of the rows to read, shape (rows,); by default all.
        as_int8
            Whether to read int8 with `MISSING` where a value is missing, see `int8_features`.

        Yields
        ------
        positions : numpy.ndarray of int, shape (rows of the batch,)
            Positions of the rows in the table, from 0. Never empty.
        block : numpy.ndarray of `feature_dtype` or int8, shape (rows of the batch, features)

        Raises
        ------
        BadDataError
            When a feature is infinite, or the file is truncated.
        """
        start = 0
        at_a_time = max(256, min(_ROWS_AT_A_TIME, _BATCH_BYTES // (4 * max(1, len(self.feature_names)))))
        for batch in self._source.batches(self.feature_names, at_a_time):
            positions = np.arange(start, start + batch.num_rows)
            start += batch.num_rows
            if rows is not None:
                keep = rows[positions]
                positions = positions[keep]
                if not len(positions):
                    continue
                if not keep.all():
                    batch = batch.filter(pa.array(keep))  # noqa: PLW2901 (the unfiltered batch is not needed)
            block = np.empty(
                (len(positions), len(self.feature_names)), dtype=np.int8 if as_int8 else self.feature_dtype
            )
            # by name: a CSV source returns columns as requested, a Parquet file in the order of the file
            for column, name in enumerate(self.feature_names):
                values = batch.column(batch.schema.get_field_index(name))
                block[:, column] = _as_int8(values) if as_int8 else values.to_numpy(zero_copy_only=False)
            self._require_finite(block, positions)
            yield positions, block

    def describe_row(self, position: int) -> str:
        """Name a row for a message: "row 17 (id n0123)"; `position` counts from 0, the message from 1."""
        return f"row {position + 1:,} (id {self.ids[int(position)].as_py()})"

    def _narrowest_dtype(self) -> DTypeLike:
        columns, names = self._source.columns, self.feature_names
        is_int8 = all(columns[name] == pa.int8() for name in names) and not self._source.has_nulls(names)
        return np.int8 if is_int8 else np.float32

    def _require_finite(self, block: NDArray[np.int8] | NDArray[np.float32], positions: NDArray[np.intp]) -> None:
        # a sum is infinite or NaN when any value is; only then are the values checked
        if block.dtype == np.int8 or np.isfinite(block.sum(dtype=np.float64)):
            return
        found = np.argwhere(np.isinf(block))
        if len(found):
            row, column = found[0]
            raise BadDataError(
                f"{self.path.name}: column {self.feature_names[column]!r} is infinite in "
                f"{self.describe_row(positions[row])}. Features are finite numbers, or empty where unknown."
            )


class JoinedTable:
    """The rows of two tables with the same features as one table, the first table's rows first.

    Parameters
    ----------
    first, second
        The tables; `second` has the features of `first`, in the same order.

    Attributes
    ----------
    path, ids, era_numbers, eras_are_weeks, targets, target_name, feature_names, feature_dtype
        As those of `Table`; the path is the first table's. Features are int8 where both tables have int8.
    """

    def __init__(self, first: Table, second: Table) -> None:
        self._tables = (first, second)
        self.path = first.path
        self.ids: pa.ChunkedArray = pa.chunked_array([chunk for table in self._tables for chunk in table.ids.chunks])
        self.era_numbers = np.concatenate([table.era_numbers for table in self._tables])
        self.eras_are_weeks = all(table.eras_are_weeks for table in self._tables)
        self.targets = np.concatenate([table.targets for table in self._tables])
        self.target_name = first.target_name
        self.feature_names = first.feature_names
        self.feature_dtype = np.result_type(*(table.feature_dtype for table in self._tables))

    def __len__(self) -> int:
        return len(self.ids)

    def of_type(self, data_type: str) -> NDArray[np.bool_]:
        """Mark the rows of a data type, see `Table.of_type`."""
        return np.concatenate([table.of_type(data_type) for table in self._tables])

    def with_features(self, names: Sequence[str]) -> JoinedTable:
        """Return the same rows with some of the features only, see `Table.with_features`."""
        selected = copy.copy(self)
        selected._tables = (self._tables[0].with_features(names), self._tables[1].with_features(names))
        selected.feature_names = tuple(names)
        return selected

    @property
    def holds_int8(self) -> bool:
        """Whether all features are stored as int8, see `Table.holds_int8`."""
        return all(table.holds_int8 for table in self._tables)

    def features(self, rows: NDArray[np.bool_] | None = None) -> NDArray[np.int8] | NDArray[np.float32]:
        """Read the features into memory, see `Table.features`."""
        return _read_features(self, rows)

    def int8_features(self, rows: NDArray[np.bool_] | None = None) -> NDArray[np.int8]:
        """Read the features into a quarter of the memory, see `Table.int8_features`."""
        return _read_features(self, rows, as_int8=True)

    def batches(
        self, rows: NDArray[np.bool_] | None = None, *, as_int8: bool = False
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.int8] | NDArray[np.float32]]]:
        """Read the features a batch of rows at a time, see `Table.batches`; positions count the joined rows."""
        start = 0
        for table in self._tables:
            wanted = None if rows is None else rows[start : start + len(table)]
            for positions, block in table.batches(wanted, as_int8=as_int8):
                yield positions + start, block if as_int8 else block.astype(self.feature_dtype, copy=False)
            start += len(table)

    def describe_row(self, position: int) -> str:
        """Name a row for a message, see `Table.describe_row`."""
        first, second = self._tables
        return first.describe_row(position) if position < len(first) else second.describe_row(position - len(first))


TableView = Union[Table, JoinedTable]
"""A table, or two tables as one."""


def _read_features(table: TableView, rows: NDArray[np.bool_] | None, *, as_int8: bool = False) -> NDArray[Any]:
    count = len(table) if rows is None else int(np.count_nonzero(rows))
    matrix = np.empty((count, len(table.feature_names)), dtype=np.int8 if as_int8 else table.feature_dtype)
    filled = 0
    for positions, block in table.batches(rows, as_int8=as_int8):
        matrix[filled : filled + len(positions)] = block
        filled += len(positions)
    return matrix


def _are_int8(batch: pa.RecordBatch) -> bool:
    """Check that all values are whole numbers from -127 to 127, or missing."""
    for column in batch.columns:
        values = column.to_numpy(zero_copy_only=False)
        known = values[~np.isnan(values)]
        if not (np.abs(known) < -MISSING).all() or (known != np.trunc(known)).any():
            return False
    return True


def _as_int8(values: pa.Array) -> NDArray[Any]:
    """Convert whole numbers to numpy, with `MISSING` for missing ones."""
    if pa.types.is_floating(values.type):
        numbers = values.to_numpy(zero_copy_only=False)
        return np.where(np.isnan(numbers), MISSING, numbers)
    filled: NDArray[np.int8] = pc.fill_null(values, MISSING).to_numpy(zero_copy_only=False)
    return filled


def era_number(name: str) -> int | None:
    """Read an era's number: 12 from ``era12``, ``0012`` or ``12``; `NO_ERA` from ``eraX``; None from anything else."""
    match = _ERA.fullmatch(name)
    if match is None:
        return None
    return NO_ERA if match[1] in "Xx" else int(match[1])


def _require_columns(path: Path, source: Source, feature_names: Sequence[str] | None) -> None:
    """Check that the columns exist and have a valid type."""
    columns = source.columns
    _require_exist(path, columns, (*TEXT_COLUMNS, TARGET))
    features = [name for name in columns if name.startswith("feature")]
    if not features:
        raise BadDataError(
            f"{path.name}: no column has a name that begins with 'feature' (found: {_listing(list(columns))})."
        )
    missing = [name for name in feature_names or () if name not in columns]
    if missing:
        raise BadDataError(
            f"{path.name}: {len(missing):,} of the {len(feature_names or ()):,} features of the training table are "
            f"missing: {_listing(missing)}. Both tables must come from the same dataset and feature set."
        )
    for name in TEXT_COLUMNS:
        if not _is_text(columns[name]):
            raise BadDataError(f"{path.name}: column {name!r} has type {columns[name]}, not text.")
    _require_numbers(path, columns, (*(feature_names or features), TARGET))


def _require_exist(path: Path, columns: Mapping[str, pa.DataType], names: Sequence[str]) -> None:
    for name in names:
        if name not in columns:
            raise BadDataError(
                f"{path.name}: column {name!r} is missing (found: {_listing(list(columns))}). "
                "Is this a Numerai dataset?"
            )


def _require_numbers(path: Path, columns: Mapping[str, pa.DataType], names: Sequence[str]) -> None:
    _require_exist(path, columns, names)
    for name in names:
        if not (pa.types.is_integer(columns[name]) or pa.types.is_floating(columns[name])):
            raise BadDataError(f"{path.name}: column {name!r} has type {columns[name]}, not a number.")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    # null: a column without any value, which fails later with the row
    return bool(
        pa.types.is_string(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_integer(kind)
        or pa.types.is_null(kind)
    )


def _read_columns(path: Path, source: Source, types: Mapping[str, pa.DataType]) -> dict[str, pa.ChunkedArray]:
    chunks: dict[str, list[pa.Array]] = {name: [] for name in types}
    for batch in source.batches(list(types), _ROWS_AT_A_TIME):
        for name, kind in types.items():
            values = batch.column(batch.schema.get_field_index(name))
            try:
                # a number too large for float32 becomes infinite, and fails as such
                column = pc.cast(values, kind, safe=False)
                # a damaged file may contain bytes that are not valid text
                column.validate(full=True)
            except pa.ArrowException as error:
                raise BadDataError(f"{path.name}: column {name!r} cannot be read as {kind} ({error}).") from error
            chunks[name].append(column)
    return {name: pa.chunked_array(chunks[name], type=kind) for name, kind in types.items()}


def _check_ids(path: Path, ids: pa.ChunkedArray) -> None:
    values = ids.combine_chunks()
    if (
        pc.count_distinct(values).as_py() == len(values)
        and not values.null_count
        and not pc.any(_blank(values)).as_py()
    ):
        return
    seen: dict[str, int] = {}
    for row, value in enumerate(values.to_pylist(), start=1):
        if not value:
            raise BadDataError(f"{path.name}: column 'id' is empty in row {row:,}.")
        if value in seen:
            raise BadDataError(
                f"{path.name}: column 'id' has {value!r} twice, in rows {seen[value]:,} and {row:,}; ids are unique."
            )
        seen[value] = row


def _blank(values: pa.Array) -> pa.Array:
    return pc.equal(values, "")


def _coded(values: pa.ChunkedArray) -> tuple[NDArray[np.intp], list[str | None]]:
    """Assign a number to each distinct value of a column: a code for each row, and the value of each code."""
    encoded = pc.dictionary_encode(values, null_encoding="encode").combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):  # older pyarrow versions combine into a chunked array of one
        encoded = encoded.chunk(0)
    codes: NDArray[np.intp] = encoded.indices.to_numpy(zero_copy_only=False).astype(np.intp)
    return codes, encoded.dictionary.to_pylist()


def _first_row(codes: NDArray[np.intp], code: int) -> int:
    return int(np.argmax(codes == code)) + 1


def _era_numbers(path: Path, eras: pa.ChunkedArray) -> NDArray[np.int32]:
    codes, names = _coded(eras)
    numbers = np.empty(len(names), dtype=np.int32)
    for code, name in enumerate(names):
        number = era_number(name or "")
        if number is None:
            raise BadDataError(
                f"{path.name}: column 'era' is {name!r} in row {_first_row(codes, code):,}; "
                "valid eras are like 'era12', '0012' or 'eraX'."
            )
        numbers[code] = number
    found: NDArray[np.int32] = numbers[codes]
    return found


def _data_type_codes(path: Path, data_types: pa.ChunkedArray) -> NDArray[np.int8]:
    codes, names = _coded(data_types)
    for code, name in enumerate(names):
        if name not in DATA_TYPES:
            raise BadDataError(
                f"{path.name}: column 'data_type' is {name!r} in row {_first_row(codes, code):,}; "
                f"allowed are {', '.join(DATA_TYPES)}."
            )
    found: NDArray[np.int8] = np.array([DATA_TYPES.index(name or "") for name in names], dtype=np.int8)[codes]
    return found


def _targets(path: Path, name: str, targets: pa.ChunkedArray, ids: pa.ChunkedArray) -> NDArray[np.float32]:
    values: NDArray[np.float32] = targets.to_numpy().astype(np.float32, copy=False)
    invalid = np.flatnonzero(~np.isnan(values) & ~((values >= 0) & (values <= 1)))
    if len(invalid):
        first = int(invalid[0])
        raise BadDataError(
            f"{path.name}: column {name!r} is {values[first]:g} in row {first + 1:,} (id {ids[first].as_py()}), "
            f"and outside [0, 1] in {len(invalid):,} of {len(values):,} rows. Was the right target column selected?"
        )
    return values


def _listing(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_MAX_NAMES_IN_MESSAGE])
    return shown if len(names) <= _MAX_NAMES_IN_MESSAGE else f"{shown}, … {len(names):,} in all"
