"""What models are measured against: others' predictions of the run's own rows, where the dataset has them.

Numerai publishes example predictions, its meta model and its benchmark models for the whole dataset. The run's
directory gets those of its tournament rows; ``evaluate`` reads them, and models do not need them.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.manifests import atomic_path, discard, read_manifest, verified_manifest, write_manifest
from numerai_pipeline.run_layout import fingerprint
from numerai_pipeline.unpacking.parquet_source import ParquetSource

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.raw_dataset import RawDataset
    from numerai_pipeline.run_layout import RunLayout

log = logging.getLogger(__name__)

REFERENCES = {
    "example_predictions": ("example_validation", "example_live"),
    "meta_model": ("meta_model",),
    "benchmark_models": ("benchmark_validation", "benchmark_live"),
}
"""Name of the file in the run's directory → the raw files' roles it is made from, those that there are."""
ROLES = tuple(role for roles in REFERENCES.values() for role in roles)


def lay_references(raw: RawDataset, layout: RunLayout) -> list[str]:
    """Put others' predictions of the tournament rows into the run's directory; return the names of what is there.

    A file that cannot be read is left out, with a warning: no run fails for want of something to compare with.

    Parameters
    ----------
    raw : RawDataset
        The raw files.
    layout : RunLayout
        Holds the finished tournament table.
    """
    tournament = read_manifest(layout.tournament)
    there = []
    for name, roles in REFERENCES.items():
        path = layout.reference(name)
        present = [role for role in roles if role in raw.files]
        made_from = {role: raw.files[role].sha256 for role in present}
        inputs = fingerprint({**made_from, "rows": tournament.sha256 if tournament else None})
        if present and verified_manifest(path, inputs=inputs):
            there.append(name)
            continue
        discard(path)
        try:
            raw.require_as_downloaded(present)
            table = _of_the_run([raw.path(role) for role in present], layout.tournament) if present else None
        except BadInputError as error:
            log.warning("%s is left out: %s", name, error)
            continue
        if table is None or not table.num_rows:
            continue
        with atomic_path(path) as temporary:
            pq.write_table(table, temporary, compression="zstd")
        write_manifest(path, rows=table.num_rows, columns=table.column_names, inputs=inputs)
        there.append(name)
    if there:
        log.info("to measure models against: %s", ", ".join(there))
    return there


def _of_the_run(files: list[Path], tournament: Path) -> Any:
    """Read the rows of some files whose ids are in the tournament table: ids and every column of numbers."""
    ids = pq.read_table(tournament, columns=["id"])["id"].combine_chunks()
    parts = []
    for file in files:
        with ParquetSource(file) as source:
            numbers = [name for name, kind in source.columns.items() if pa.types.is_floating(kind)]
            parts += [
                batch.filter(pc.is_in(batch["id"], value_set=ids)) for batch in source.read_columns(["id"], numbers)
            ]
    # live and validation files may differ in their columns: what one lacks is unknown there
    return pa.concat_tables([pa.Table.from_batches([part]) for part in parts], promote_options="default")
