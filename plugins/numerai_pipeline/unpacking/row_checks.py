"""What every row of a run's tables must be, checked a batch at a time, told by file, row, column and value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.number_format import exact_text
from numerai_pipeline.unpacking.tables import TRAINING_TYPES, TableSchema, era_number

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class RowLocation:
    """Where a batch of rows came from.

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
        """Say what is wrong with a value of the batch's row ``index``."""
        return BadInputError(f"{self.file}: row {self.first_row + index:,}, column {column!r}: {reason}")


def check_rows(batch: Any, form: TableSchema, allowed: Sequence[str], location: RowLocation) -> None:
    """Check every value of a batch of rows.

    Parameters
    ----------
    batch : pyarrow.RecordBatch
        Rows of ``form.schema``; missing values are nulls or NaN.
    form : TableSchema
        The form of the tables.
    allowed : sequence of str
        Data types that the table may hold. A training table's eras must be numbered.
    location : RowLocation
        Where the rows came from.

    Raises
    ------
    BadInputError
        Naming file, row, column and value: an empty id or era, an unknown data type, a training era without a number,
        an infinite feature, a target outside 0 to 1.
    """
    _check_keys(batch, allowed, location)
    if tuple(allowed) == TRAINING_TYPES:
        _check_eras_numbered(batch["era"], location)
    for name, kind in form.features.items():
        _check_feature(batch[name], name, kind, location)
    _check_target(batch["target"], form.target, location)


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


def _check_feature(values: Any, name: str, kind: Any, location: RowLocation) -> None:
    if kind == pa.int8():
        # this type was chosen because the file had a value in every row when it was first read
        if values.null_count:
            reason = "the value is missing now and was not a moment ago: does something write to the file?"
            raise location.error(_first(pc.is_null(values)) or 0, name, reason)
        return
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
    """RowLocation of the first true value; None when there is none."""
    index: int = pc.index(mask, True).as_py()
    return None if index < 0 else index
