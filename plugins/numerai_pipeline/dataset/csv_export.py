"""Writes the run's tables as CSV, for images of the pipeline of 2018."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.storage.disk import require_free_space, translate_disk_errors
from numerai_pipeline.storage.locks import exclusive_lock
from numerai_pipeline.storage.manifests import (
    atomic_path,
    read_manifest,
    require_whole,
    verified_manifest,
    write_manifest,
)
from numerai_pipeline.storage.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.storage.layout import RunLayout

# minimum size of a number and its comma: features of five values
_CELL_BYTES = 2

log = logging.getLogger(__name__)


def write_csv_tables(layout: RunLayout) -> None:
    """Write ``training.csv`` and ``tournament.csv`` beside the parquet tables unless they are up to date.

    The columns are the same; a missing value is an empty field.

    Raises
    ------
    BadInputError
        When a parquet table does not match its manifest.
    DiskFullError
        When the volume has not enough space.
    """
    # two models may need the tables at the same time
    lock = exclusive_lock(layout.training, "writing the CSV tables", beside=False)
    with translate_disk_errors(layout.directory), lock:
        for table, csv in zip(layout.tables("parquet"), layout.tables("csv"), strict=True):
            _write_csv(table, csv)


def _write_csv(table: Path, csv: Path) -> None:
    source = read_manifest(table)
    if source is not None and verified_manifest(csv, inputs=source.sha256):
        return
    inputs = require_whole(table, "`unzip`").sha256
    with pq.ParquetFile(table) as file, atomic_path(csv) as temporary:
        cells = file.metadata.num_rows * file.metadata.num_columns
        require_free_space(csv.parent, cells * _CELL_BYTES, f"writing {csv.name}")
        progress = Progress(log, f"{csv.name}: writing", file.metadata.num_rows, "rows")
        plain = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")
        with pa.csv.CSVWriter(temporary, file.schema_arrow, write_options=plain) as writer:
            for batch in file.iter_batches(batch_size=10_000):
                writer.write_batch(_nan_to_null(batch))
                progress.advance(batch.num_rows)
        rows = file.metadata.num_rows
        columns = file.schema_arrow.names
    write_manifest(csv, rows=rows, columns=columns, inputs=inputs)


def _nan_to_null(batch: Any) -> Any:
    """Replace NaN by null, an empty field in CSV."""
    columns = [
        pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if pa.types.is_floating(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
