"""Published predictions that a run's models are compared with, where the dataset has them.

Numerai publishes example predictions, its meta model and its benchmark models for the whole dataset. The run's
directory gets the rows of its tournament table; ``evaluate`` reads them, models do not. None of these files is
needed for a run: a file that is missing or cannot be used is a warning, and the leaderboard lists it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError, PipelineError
from numerai_pipeline.dataset.parquet_source import ParquetSource, is_number
from numerai_pipeline.dataset.tables import KEYS, abbreviate
from numerai_pipeline.storage.disk import translate_disk_errors
from numerai_pipeline.storage.layout import fingerprint
from numerai_pipeline.storage.manifests import atomic_path, discard, read_manifest, verified_manifest, write_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numerai_pipeline.dataset.raw import RawDataset
    from numerai_pipeline.storage.layout import RunLayout

log = logging.getLogger(__name__)

REFERENCES = {
    "example_predictions": ("example_validation", "example_live"),
    "meta_model": ("meta_model",),
    "benchmark_models": ("benchmark_validation", "benchmark_live"),
}
"""Name of the file in the run's directory → the roles of its raw files; a dataset need not have any of them."""
ROLES = tuple(role for roles in REFERENCES.values() for role in roles)
_UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class Benchmarks:
    """The comparisons of a run.

    Attributes
    ----------
    available : list of str
        Names of the files that are in the run's directory.
    unavailable : dict
        Role of a raw file, or name of a comparison without any → why its rows or columns are missing.
    """

    available: list[str] = field(default_factory=list)
    unavailable: dict[str, str] = field(default_factory=dict)


def write_benchmarks(raw: RawDataset, layout: RunLayout) -> Benchmarks:
    """Write the published predictions of the tournament rows into the run's directory.

    Parameters
    ----------
    raw : RawDataset
        The raw files.
    layout : RunLayout
        Holds the finished tournament table.

    Returns
    -------
    Benchmarks
        The comparisons that there are, and the reason for each raw file that is not used, or not as a whole.

    Raises
    ------
    DiskFullError, VolumeError
        When the run's directory cannot be written. No content of a raw file raises an exception.
    """
    benchmarks = Benchmarks()
    with translate_disk_errors(layout.directory):
        for name, roles in REFERENCES.items():
            if not {*raw.files, *raw.unavailable}.intersection(roles):
                discard(layout.reference(name))
                benchmarks.unavailable[name] = f"dataset {raw.version} has no such file"
                continue
            written, reasons = _write_one(name, roles, raw, layout)
            if written:
                benchmarks.available.append(name)
            for role, reason in reasons.items():
                log.warning("no comparison, or only in part: %s: %s", role, reason)
            benchmarks.unavailable.update(reasons)
    if benchmarks.available:
        log.info("comparisons: %s", ", ".join(benchmarks.available))
    return benchmarks


def _write_one(name: str, roles: Sequence[str], raw: RawDataset, layout: RunLayout) -> tuple[bool, dict[str, str]]:
    path = layout.reference(name)
    present = [role for role in roles if role in raw.files]
    reasons = {role: raw.unavailable[role] for role in roles if role in raw.unavailable}
    if not present:
        discard(path)
        return False, reasons
    tournament = read_manifest(layout.tournament)
    made_from = {role: raw.files[role].sha256 for role in present}
    inputs = fingerprint({**made_from, "rows": tournament.sha256 if tournament else None})
    manifest = verified_manifest(path, inputs=inputs)
    if manifest is not None:
        return True, reasons | manifest.about.get(_UNAVAILABLE, {})
    discard(path)
    ids = pq.read_table(layout.tournament, columns=["id"])["id"].combine_chunks()
    tables, failures = _read_tables(present, raw, ids)
    if not tables:
        return False, reasons | failures
    lacking = _lacking_columns({role: raw.path(role).name for role in tables}, tables)
    table = pa.concat_tables(list(tables.values()), promote_options="default")
    with atomic_path(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    write_manifest(
        path,
        rows=table.num_rows,
        columns=table.column_names,
        # a file that could not be read is read again by the next run
        inputs=None if failures else inputs,
        about={_UNAVAILABLE: lacking},
    )
    return True, reasons | failures | lacking


def _read_tables(roles: Iterable[str], raw: RawDataset, ids: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Read the run's rows of each file, and collect the reasons where that fails."""
    tables: dict[str, Any] = {}
    failures = {}
    for role in roles:
        try:
            raw.verify_checksums([role])
            table = _rows_of_run(raw.path(role), ids)
            _require_unique_ids(raw.path(role).name, [*tables.values(), table])
        except (PipelineError, OSError) as error:
            failures[role] = str(error)
        else:
            tables[role] = table
    return tables, failures


def _rows_of_run(file: Path, ids: Any) -> Any:
    """Read the rows whose ids are in the tournament table: ``id``, and the columns of numbers with values there."""
    with ParquetSource(file) as source:
        names = [name for name, kind in source.columns.items() if name not in KEYS and is_number(kind)]
        if not names:
            found = [f"{name} ({kind})" for name, kind in source.columns.items()]
            msg = f"{file.name}: there is no column of numbers (found: {abbreviate(found)})"
            raise BadInputError(msg)
        batches = [batch.filter(pc.is_in(batch["id"], value_set=ids)) for batch in source.read_columns(["id"], names)]
    table = pa.Table.from_batches(batches)
    if not table.num_rows:
        msg = f"{file.name}: none of its ids is in the run's tournament table"
        raise BadInputError(msg)
    table = _without_infinity(table)
    valued = [name for name in names if table[name].null_count < table.num_rows]
    if not valued:
        msg = f"{file.name}: no value in any of the run's rows (columns: {abbreviate(names)})"
        raise BadInputError(msg)
    return table.select(["id", *valued])


def _without_infinity(table: Any) -> Any:
    """Count infinity and NaN as missing: scores are of finite numbers."""
    columns = [table["id"]]
    columns += [pc.if_else(pc.is_finite(column), column, None) for column in table.columns[1:]]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _require_unique_ids(file: str, tables: Sequence[Any]) -> None:
    ids = pa.chunked_array([chunk for table in tables for chunk in table["id"].chunks], pa.string())
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        msg = f"{file}: id {repeated[0]['values'].as_py()!r} is there more than once, {len(repeated):,} such ids in all"
        raise BadInputError(msg)


def _lacking_columns(files: dict[str, str], tables: dict[str, Any]) -> dict[str, str]:
    """Describe for each file the columns that it has no values of, though another file has."""
    everything = dict.fromkeys(name for table in tables.values() for name in table.column_names)
    lacking = {role: [name for name in everything if name not in table.column_names] for role, table in tables.items()}
    return {
        role: f"{files[role]}: no values of {abbreviate(names)}, which the other file has"
        for role, names in lacking.items()
        if names
    }
