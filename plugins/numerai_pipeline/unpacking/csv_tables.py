"""The run's tables as CSV, for images that were written for the pipeline of 2018."""

from __future__ import annotations

import fcntl
import logging
import os
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.disk import require_free_space, translate_disk_errors
from numerai_pipeline.manifests import atomic_path, read_manifest, require_whole, verified_manifest, write_manifest
from numerai_pipeline.progress import Progress

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.run_layout import RunLayout

# of a number and its comma, at least: what features of five values take
_CELL_BYTES = 2

log = logging.getLogger(__name__)


def write_csv_tables(layout: RunLayout) -> None:
    """Make ``training.csv`` and ``tournament.csv`` beside the parquet tables unless they are there and current.

    The columns are the same; a missing value is an empty field.

    Raises
    ------
    BadInputError
        When a parquet table is not what its manifest says.
    DiskFullError
        When they do not fit on the volume.
    """
    with translate_disk_errors(layout.directory):
        handle = os.open(layout.training, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)  # two models may want them at once
            for table, csv in zip(layout.tables("parquet"), layout.tables("csv"), strict=True):
                _provide(table, csv)
        finally:
            os.close(handle)


def _provide(table: Path, csv: Path) -> None:
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
                writer.write_batch(_with_gaps(batch))
                progress.advance(batch.num_rows)
        rows = file.metadata.num_rows
        columns = file.schema_arrow.names
    write_manifest(csv, rows=rows, columns=columns, inputs=inputs)


def _with_gaps(batch: Any) -> Any:
    """Turn NaN into a missing value, which CSV writes as nothing."""
    columns = [
        pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if pa.types.is_floating(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
