"""Which rows of a raw file go into a table, and as what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from numerai_pipeline.unpacking.tables import RowSource, era_number

if TYPE_CHECKING:
    from collections.abc import Collection


@dataclass(frozen=True)
class RowFilter:
    """Rows of a raw file.

    Attributes
    ----------
    source : RowSource
        The file. All its rows are checked, whether they are taken or not.
    allowed : tuple of str
        Data types it may hold.
    eras : range, optional
        Numbers of the eras that are taken; all rows when left out.
    data_type : str, optional
        What the rows are called in the table; as in the file when left out.
    """

    source: RowSource
    allowed: tuple[str, ...]
    eras: range | None = None
    data_type: str | None = None

    def pick(self, batch: Any, kept_eras: Collection[str] | None = None) -> Any:
        """Take the rows of a batch that are meant.

        Parameters
        ----------
        batch : pyarrow.RecordBatch
            Rows of the file, checked.
        kept_eras : collection of str, optional
            Only these eras of those that are taken.
        """
        if self.eras is not None:
            batch = in_eras(batch, {era for era in pc.unique(batch["era"]).to_pylist() if self.includes(era)})
        if kept_eras is not None:
            batch = in_eras(batch, kept_eras)
        if self.data_type is not None and batch.num_rows:
            place = batch.schema.get_field_index("data_type")
            named = pa.array([self.data_type] * batch.num_rows, pa.string())
            batch = batch.set_column(place, batch.schema.field(place), named)
        return batch

    def includes(self, era: str) -> bool:
        """Tell whether the rows of an era are taken."""
        return self.eras is None or era_number(era) in self.eras


def in_eras(batch: Any, eras: Collection[str]) -> Any:
    """Rows of a batch whose era is one of these."""
    return batch.filter(pc.is_in(batch["era"], value_set=pa.array(sorted(eras), pa.string())))


def with_unknown_targets(batch: Any) -> Any:
    """Give the same rows with every target unknown (NaN)."""
    place = batch.schema.get_field_index("target")
    unknown = pa.array([float("nan")] * batch.num_rows, pa.float32())
    return batch.set_column(place, batch.schema.field(place), unknown)
