"""Writes tables for images that keep no model, such as those of the pipeline of 2018.

Such an image trains on the training table and predicts the tournament table: the validation and live rows of a run.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from numerai_pipeline.dataset.tables import TARGET, TableWriter
from numerai_pipeline.storage.disk import require_free_space, translate_disk_errors
from numerai_pipeline.storage.layout import fingerprint
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
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from numerai_pipeline.dataset.store import Dataset
    from numerai_pipeline.storage.layout import DatasetLayout, RunLayout

# minimum size of a number and its comma: features of five values
_CELL_BYTES = 2

log = logging.getLogger(__name__)


def write_training_csv(layout: DatasetLayout) -> Path:
    """Write ``training.csv`` into a dataset's directory unless it exists; return its path.

    The columns are those of the training table without further targets; a missing value is an empty field.

    Raises
    ------
    BadInputError
        When the training table does not match its manifest.
    DiskFullError
        When the volume has not enough space.
    """
    _write_once(layout.training_csv, [layout.training])
    return layout.training_csv


def write_tournament(dataset: Dataset, run: RunLayout, table_format: str) -> Path:
    """Write the run's validation and live rows as one table unless it exists; return its path.

    Parameters
    ----------
    dataset : Dataset
        The run's dataset.
    run : RunLayout
        The run's directory, with the live table.
    table_format : str
        ``parquet`` or ``csv``; in CSV a missing value is an empty field.

    Raises
    ------
    BadInputError
        When one of the tables does not match its manifest.
    DiskFullError
        When the volume has not enough space.
    """
    path = run.tournament_csv if table_format == "csv" else run.tournament
    _write_once(path, [dataset.layout.validation, run.live])
    return path


def _write_once(path: Path, tables: Sequence[Path]) -> None:
    """Write the rows of tables, one after the other, unless the file is up to date."""
    # two models may need the file at the same time
    with translate_disk_errors(path.parent), exclusive_lock(path.parent, "writing the same table", beside=False):
        sources = [read_manifest(table) for table in tables]
        inputs = fingerprint({"tables": [source.sha256 if source else None for source in sources]})
        if all(sources) and verified_manifest(path, inputs=inputs):
            return
        sums = [require_whole(table, "`unzip`").sha256 for table in tables]
        with ExitStack() as opened:
            files = [opened.enter_context(pq.ParquetFile(table)) for table in tables]
            schema = _common_schema(files)
            rows = sum(file.metadata.num_rows for file in files)
            require_free_space(path.parent, rows * len(schema.names) * _CELL_BYTES, f"writing {path.name}")
            progress = Progress(log, f"{path.name}: writing", rows, "rows")
            writer = _csv_writer if path.suffix == ".csv" else _parquet_writer
            with atomic_path(path) as temporary, writer(temporary, schema) as write:
                for file in files:
                    for batch in file.iter_batches(batch_size=10_000, columns=schema.names):
                        write(_with_schema(batch, schema))
                        progress.advance(batch.num_rows)
        write_manifest(path, rows=rows, columns=schema.names, inputs=fingerprint({"tables": sums}))


def _common_schema(files: Sequence[Any]) -> Any:
    """Return the schema of the first file without further targets, float32 for features that are not always int8."""
    schema = files[0].schema_arrow
    for name in [name for name in schema.names if name.startswith(f"{TARGET}_")]:
        schema = schema.remove(schema.get_field_index(name))
    for index, field in enumerate(schema):
        if any(file.schema_arrow.field(field.name).type != field.type for file in files):
            schema = schema.set(index, field.with_type(pa.float32()))
    return schema


def _with_schema(batch: Any, schema: Any) -> Any:
    columns = [batch[field.name].cast(field.type) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


@contextmanager
def _parquet_writer(path: Path, schema: Any) -> Iterator[Callable[[Any], None]]:
    with TableWriter(path, schema) as writer:
        yield writer.write


@contextmanager
def _csv_writer(path: Path, schema: Any) -> Iterator[Callable[[Any], None]]:
    plain = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")
    with pa.csv.CSVWriter(path, schema, write_options=plain) as writer:
        yield lambda batch: writer.write_batch(_nan_to_null(batch))


def _nan_to_null(batch: Any) -> Any:
    """Replace NaN by null, an empty field in CSV."""
    columns = [
        pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if pa.types.is_floating(column.type)
        else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, schema=batch.schema)
