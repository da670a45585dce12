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
    data_type : str, optional
        Data type of the rows in the table; as in the file by default.
    """

    source: RowSource
    allowed: tuple[str, ...]
    eras: range | None = None
    data_type: str | None = None

    def select(self, batch: Any, kept_eras: Collection[str] | None = None) -> Any:
        """Return the selected rows of a batch.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            Rows of the file, checked.
        kept_eras : collection of str, optional
            Further restriction to these eras.
        """
        if self.eras is not None:
            batch = in_eras(batch, {era for era in pc.unique(batch["era"]).to_pylist() if self.includes(era)})
        if kept_eras is not None:
            batch = in_eras(batch, kept_eras)
        if self.data_type is not None and batch.num_rows:
            index = batch.schema.get_field_index("data_type")
            data_types = pa.array([self.data_type] * batch.num_rows, pa.string())
            batch = batch.set_column(index, batch.schema.field(index), data_types)
        return batch

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
