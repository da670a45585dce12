"""Selects the rows of a raw file for a table, and sets their data type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from numerai_pipeline.dataset.tables import RowSource, era_number

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True)
class RowFilter:
    """Filter for the rows of a raw file.

    Attributes
    ----------
    source : RowSource
        The file. All of its rows are checked, selected or not.
    allowed : tuple of str
        Data types that it may have.
    eras : range, optional
        Numbers of the selected eras; all rows by default.
    data_types : tuple of str, optional
        Data types of the selected rows; all by default.
    new_type : str, optional
        Data type of the rows in the table; as in the file by default.
    """

    source: RowSource
    allowed: tuple[str, ...]
    eras: range | None = None
    data_types: tuple[str, ...] | None = None
    new_type: str | None = None

    def select_eras(self, batch: Any) -> Any:
        """Return the rows of a batch in the selected eras."""
        if self.eras is None:
            return batch
        return in_eras(batch, {era for era in pc.unique(batch["era"]).to_pylist() if era and self.includes(era)})

    def select_types(self, batch: Any) -> Any:
        """Return the rows of a batch with the selected data types."""
        if self.data_types is None:
            return batch
        return batch.filter(pc.is_in(batch["data_type"], value_set=pa.array(self.data_types, pa.string())))

    def with_new_type(self, batch: Any) -> Any:
        """Return the rows of a batch with their data type in the table."""
        if self.new_type is None or not batch.num_rows:
            return batch
        index = batch.schema.get_field_index("data_type")
        data_types = pa.array([self.new_type] * batch.num_rows, pa.string())
        return batch.set_column(index, batch.schema.field(index), data_types)

    def includes(self, era: str) -> bool:
        """Check whether the rows of an era are selected."""
        return self.eras is None or era_number(era) in self.eras


def in_eras(batch: Any, eras: Collection[str]) -> Any:
    """Return the rows of a batch whose era is one of these."""
    return batch.filter(pc.is_in(batch["era"], value_set=pa.array(sorted(eras), pa.string())))


def with_unknown_targets(batch: Any) -> Any:
    """Return the rows with unknown targets (NaN)."""
    index = batch.schema.get_field_index("target")
    unknown = pa.array([float("nan")] * batch.num_rows, pa.float32())
    return batch.set_column(index, batch.schema.field(index), unknown)
