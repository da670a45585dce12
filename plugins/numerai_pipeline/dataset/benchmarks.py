"""Published predictions that a run's models are compared with, where the dataset has them.

Numerai publishes example predictions, its meta model and its benchmark models for the whole dataset. The rows of the
validation table and, in a walk-forward run, of the live table are a result of their own, which runs share.
``evaluate`` reads them, models do not. None of these files is needed for a run: a file that is missing or cannot be
used is a warning, and the leaderboard lists it.
"""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError, PipelineError
from numerai_pipeline.dataset.parquet_source import ParquetSource, is_number
from numerai_pipeline.dataset.tables import KEYS, abbreviate
from numerai_pipeline.storage.directories import atomic_directory, remove_directory
from numerai_pipeline.storage.disk import translate_disk_errors
from numerai_pipeline.storage.layout import fingerprint
from numerai_pipeline.storage.locks import exclusive_lock
from numerai_pipeline.storage.manifests import verified_manifest, write_manifest

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.dataset.raw import RawDataset
    from numerai_pipeline.dataset.store import Dataset
    from numerai_pipeline.storage.layout import DataLayout, RunLayout

log = logging.getLogger(__name__)

REFERENCES = {
    "example_predictions": "example_validation",
    "meta_model": "meta_model",
    "benchmark_models": "benchmark_validation",
}
"""Name of a comparison's file → the role of its raw file; a dataset need not have any of them."""
TASK = "references"
"""Name of the folder of the results."""
METADATA = "references.json"
_FORMAT = 1


@dataclass(frozen=True)
class Benchmarks:
    """A finished result: ``<name>.parquet`` for each available comparison, and ``references.json``.

    Attributes
    ----------
    key : str
        Hash of everything that decides the files; the name of the directory.
    directory : Path
        The directory.
    available : list of str
        Names of the files, without ``.parquet``.
    unavailable : dict
        Role of a raw file, or name of a comparison without one → why there is no comparison.
    """

    key: str
    directory: Path
    available: list[str]
    unavailable: dict[str, str]

    def file(self, name: str) -> Path:
        """Path of an available comparison: parquet with ``id`` and columns of numbers."""
        return self.directory / f"{name}.parquet"


class _UnreadableError(Exception):
    """The operating system failed to read a file; the next run may succeed."""

    def __init__(self, role: str, reason: str) -> None:
        super().__init__(reason)
        self.role = role


def write_benchmarks(raw: RawDataset, dataset: Dataset, data: DataLayout, run: RunLayout) -> Benchmarks:
    """Return the published predictions of the validation rows and, in a walk-forward run, of the live rows.

    They are written where they do not exist.

    Parameters
    ----------
    raw : RawDataset
        The raw files.
    dataset : Dataset
        The run's dataset.
    data : DataLayout
        The data volume.
    run : RunLayout
        For a walk-forward run, holds the finished live table; otherwise not read.

    Returns
    -------
    Benchmarks
        The comparisons that there are, and the reason for each raw file that is not used.

    Raises
    ------
    DiskFullError, VolumeError
        When the result cannot be written. No content of a raw file raises an exception.
    """
    roles = {role: raw.files[role].sha256 for role in REFERENCES.values() if role in raw.files}
    reasons = {role: raw.unavailable[role] for role in REFERENCES.values() if role in raw.unavailable}
    if not (found := _find(_locate(raw, dataset, data, roles, reasons))):
        for role in list(roles):
            try:
                raw.verify_checksums([role])
            except (PipelineError, OSError) as error:
                del roles[role]
                reasons[role] = str(error)
    while not found:
        try:
            found = _make(raw, dataset, data, run, roles, reasons)
        except _UnreadableError as error:
            del roles[error.role]
            reasons[error.role] = str(error)
    for role in REFERENCES.values():
        if role in found.unavailable and role in {*raw.files, *raw.unavailable}:
            log.warning("no comparison: %s: %s", role, found.unavailable[role])
    if found.available:
        log.info("comparisons: %s", ", ".join(found.available))
    return found


def benchmark_model(version: str, days: int) -> str | None:
    """Return the name of the benchmark model that Numerai's diagnostics compare with.

    Parameters
    ----------
    version : str
        Dataset version, such as ``v5.3``.
    days : int
        Trading days that the payout target looks ahead, such as 60.

    Returns
    -------
    str or None
        Such as ``v53_lgbm_ender60``, the recorded name; those of other versions and days follow its form. None where
        the version is not one of Numerai's.
    """
    found = re.fullmatch(r"v(\d+)(?:\.(\d+))?", version)
    return f"v{found[1]}{found[2] or ''}_lgbm_ender{days}" if found else None


def find_benchmarks(dataset: Dataset, data: DataLayout) -> Benchmarks | None:
    """Return the newest comparisons that an earlier run has written for a dataset of live rounds."""
    found = []
    for file in (data.results_root / TASK).glob(f"[!.]*/{METADATA}"):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            if (content["dataset"], content["era"]) == (dataset.key, None):
                found.append((file.stat().st_mtime, file.parent))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
    return _find(max(found)[1]) if found else None


def _locate(
    raw: RawDataset, dataset: Dataset, data: DataLayout, roles: dict[str, str], reasons: dict[str, str]
) -> Path:
    key = fingerprint(
        {
            "format": _FORMAT,
            "dataset": dataset.key,
            "era": raw.era,
            "version": raw.version,
            "made_from": roles,
            "unavailable": reasons,
        }
    )
    return data.result(TASK, key)


def _find(directory: Path) -> Benchmarks | None:
    try:
        content = json.loads((directory / METADATA).read_text(encoding="utf-8"))
        found = Benchmarks(directory.name, directory, content["available"], content["unavailable"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return None
    return found if all(verified_manifest(found.file(name)) for name in found.available) else None


def _make(
    raw: RawDataset,
    dataset: Dataset,
    data: DataLayout,
    run: RunLayout,
    roles: dict[str, str],
    reasons: dict[str, str],
) -> Benchmarks:
    directory = _locate(raw, dataset, data, roles, reasons)
    with translate_disk_errors(data.results_root):
        directory.parent.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(directory, "writing the same comparisons"):
            if found := _find(directory):
                return found
            if directory.exists():
                log.warning("%s: damaged; writing it again", directory)
                remove_directory(directory)
            tables = [dataset.layout.validation, *([run.live] if raw.era is not None else [])]
            ids = pa.concat_arrays([pq.read_table(path, columns=["id"])["id"].combine_chunks() for path in tables])
            with atomic_directory(directory) as temporary:
                made = Benchmarks(directory.name, temporary, [], dict(reasons))
                for name, role in REFERENCES.items():
                    if role not in roles:
                        if role not in reasons:
                            made.unavailable[name] = f"dataset {raw.version} has no such file"
                        continue
                    try:
                        table = _rows_with_ids(raw.path(role), ids)
                    except PipelineError as error:
                        made.unavailable[role] = str(error)
                        continue
                    except OSError as error:
                        raise _UnreadableError(role, str(error)) from error
                    path = made.file(name)
                    pq.write_table(table, path, compression="zstd")
                    path.chmod(0o644)
                    write_manifest(path, rows=table.num_rows, columns=table.column_names)
                    made.available.append(name)
                content = {
                    "dataset": dataset.key,
                    "era": raw.era,
                    "version": raw.version,
                    "made_from": roles,
                    "available": made.available,
                    "unavailable": made.unavailable,
                }
                (temporary / METADATA).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return Benchmarks(directory.name, directory, made.available, made.unavailable)


def _rows_with_ids(file: Path, ids: Any) -> Any:
    """Read the rows with these ids: ``id``, and the columns of numbers with values there."""
    with ParquetSource(file) as source:
        names = [name for name, kind in source.columns.items() if name not in KEYS and is_number(kind)]
        if not names:
            found = [f"{name} ({kind})" for name, kind in source.columns.items()]
            msg = f"{file.name}: there is no column of numbers (found: {abbreviate(found)})"
            raise BadInputError(msg)
        batches = [batch.filter(pc.is_in(batch["id"], value_set=ids)) for batch in source.read_columns(["id"], names)]
    table = pa.Table.from_batches(batches)
    if not table.num_rows:
        msg = f"{file.name}: none of its ids is in the validation table"
        raise BadInputError(msg)
    _require_unique_ids(file.name, table["id"])
    table = _without_infinity(table)
    valued = [name for name in names if table[name].null_count < table.num_rows]
    if not valued:
        msg = f"{file.name}: no value in any row of the validation table (columns: {abbreviate(names)})"
        raise BadInputError(msg)
    return table.select(["id", *valued])


def _without_infinity(table: Any) -> Any:
    """Count infinity and NaN as missing: scores are of finite numbers."""
    columns = [table["id"]]
    columns += [pc.if_else(pc.is_finite(column), column, None) for column in table.columns[1:]]
    return pa.Table.from_arrays(columns, names=table.column_names)


def _require_unique_ids(file: str, ids: Any) -> None:
    counts = pc.value_counts(ids)
    repeated = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(repeated):
        msg = f"{file}: id {repeated[0]['values'].as_py()!r} is there more than once, {len(repeated):,} such ids in all"
        raise BadInputError(msg)
