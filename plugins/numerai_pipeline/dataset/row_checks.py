"""Checks the rows of the tables in batches; errors name file, row, column and value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.number_format import exact_text
from numerai_pipeline.dataset.tables import TRAINING_TYPES, TableSchema, era_number

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class RowLocation:
    """Location of a batch of rows in a raw file.

    Attributes
    ----------
    file : str
        Name of the file.
    first_row : int
        Number in that file of the batch's first row, counted from 1 without a header.
    """

    file: str
    first_row: int

    def error(self, index: int, column: str, reason: str) -> BadInputError:
        """Build the error about a value in row ``index`` of the batch."""
        return BadInputError(f"{self.file}: row {self.first_row + index:,}, column {column!r}: {reason}")


def check_rows(batch: Any, schema: TableSchema, allowed: Sequence[str], location: RowLocation) -> None:
    """Check the values of a batch of rows.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Rows of ``schema.arrow_schema``; missing values are nulls or NaN.
    schema : TableSchema
        The schema of the tables.
    allowed : sequence of str
        Data types that the table may have. The eras of a training table must have numbers.
    location : RowLocation
        Location of the rows.

    Raises
    ------
    BadInputError
        Naming file, row, column and value of an empty id or era, an unknown data type, a training era without a number,
        an infinite feature, or a target outside 0 to 1.
    """
    _check_keys(batch, allowed, location)
    if tuple(allowed) == TRAINING_TYPES:
        _check_eras_numbered(batch["era"], location)
    for name, kind in schema.features.items():
        if kind != pa.int8():
            _check_feature(batch[name], name, location)
    for column, name in schema.targets.items():
        _check_target(batch[column], name, location)


def _check_keys(batch: Any, allowed: Sequence[str], location: RowLocation) -> None:
    for key in ("id", "era"):
        empty = _first(pc.fill_null(pc.equal(pc.utf8_trim_whitespace(batch[key]), ""), True))
        if empty is not None:
            raise location.error(empty, key, f"the {key} is empty, but every row needs one: download the file again")
    unknown = _first(pc.invert(pc.is_in(batch["data_type"], value_set=pa.array(allowed, pa.string()))))
    if unknown is not None:
        value = batch["data_type"][unknown].as_py()
        expected = f"{', '.join(allowed)} expected" if len(allowed) == 1 else f"one of {', '.join(allowed)} expected"
        raise location.error(unknown, "data_type", f"{value!r} is unknown here ({expected}): are the files swapped?")


def _check_eras_numbered(eras: Any, location: RowLocation) -> None:
    for era in pc.unique(eras).to_pylist():
        if era_number(era) is None:
            first = _first(pc.equal(eras, era)) or 0
            reason = f"{era!r} has no number, but training eras are ordered by theirs (era12 or 0012)"
            raise location.error(first, "era", f"{reason}: repair the file or download it again")


def require_complete_int8(batch: Any, schema: TableSchema, file: str) -> None:
    """Check that the selected rows have all int8 features: the file had no missing values when it was scanned."""
    for name, kind in schema.features.items():
        if kind == pa.int8() and batch[name].null_count:
            row_id = batch["id"][_first(pc.is_null(batch[name])) or 0].as_py()
            msg = (
                f"{file}: row {row_id!r}, column {name!r}: the value is missing, though it existed a moment ago: does"
                " another process write to the file?"
            )
            raise BadInputError(msg)


def _check_feature(values: Any, name: str, location: RowLocation) -> None:
    infinite = _first(pc.is_inf(values))
    if infinite is not None:
        reason = f"{exact_text(values[infinite])} is infinite or too large: features must be finite numbers, or empty"
        raise location.error(infinite, name, f"{reason}; repair the file or download it again")


def _check_target(values: Any, name: str, location: RowLocation) -> None:
    outside = _first(pc.or_(pc.less(values, 0.0), pc.greater(values, 1.0)))
    if outside is not None:
        reason = f"{exact_text(values[outside])} is outside 0 to 1: leave a target empty where it is unknown"
        raise location.error(outside, name, reason)


def _first(mask: Any) -> int | None:
    """Return the index of the first true value; None if there is none."""
    index: int = pc.index(mask, True).as_py()
    return None if index < 0 else index
