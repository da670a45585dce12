"""Converts the raw files to the run's two tables.

Both data layouts, a zip of the classic layout and today's parquet files, are converted to ``training.parquet`` and
``tournament.parquet`` of one schema, which the model images read (``tables.py``). ``plan.py`` selects the
files, columns and target; ``row_checks.py`` and ``id_checks.py`` check the rows.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.core.errors import BadInputError, PipelineError
from numerai_pipeline.dataset import benchmarks
from numerai_pipeline.dataset.id_checks import DuplicateIdDetector
from numerai_pipeline.dataset.plan import DatasetPlan, make_plan
from numerai_pipeline.dataset.row_checks import RowLocation, check_rows
from numerai_pipeline.dataset.selection import RowFilter, with_unknown_targets
from numerai_pipeline.dataset.tables import (
    TableSchema,
    TableStats,
    TableWriter,
    abbreviate,
    count_missing,
    era_number,
    fill_missing,
)
from numerai_pipeline.storage.disk import translate_disk_errors
from numerai_pipeline.storage.locks import exclusive_lock
from numerai_pipeline.storage.manifests import atomic_path, discard, manifest_path, verified_manifest, write_manifest
from numerai_pipeline.storage.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numerai_pipeline.dataset.raw import RawDataset
    from numerai_pipeline.storage.layout import RunLayout

log = logging.getLogger(__name__)

TARGET_COLUMNS = ("id", "era", "target")
"""Columns of the table of true targets."""
_SCRATCH = "unpacked"


@dataclass(frozen=True)
class TableSummary:
    """Summary of a table.

    Attributes
    ----------
    rows : int
        Rows.
    eras : int
        Number of eras.
    data_types : dict
        Data type → rows.
    missing : int
        Missing feature values (NaN).
    without_target : int
        Rows dropped because their target is unknown; training only.
    """

    rows: int
    eras: int
    data_types: dict[str, int]
    missing: int
    without_target: int

    @classmethod
    def of(cls, stats: TableStats) -> TableSummary:
        """Summarize the statistics of a table."""
        return cls(stats.rows, len(stats.eras), dict(stats.data_types), stats.missing, stats.without_target)


@dataclass(frozen=True)
class UnpackedDataset:
    """Summary of the run's tables.

    Attributes
    ----------
    training, tournament : TableSummary
        The two tables.
    features : int
        Feature columns, the same in both.
    feature_set : str
        Name of the feature set; ``all`` for an archive.
    target : str
        The source's name of the target; the column of the tables is ``target``.
    up_to_date : bool
        Whether the tables existed already, from the same inputs.
    known_until : str, optional
        For a walk-forward run, the newest era trained on.
    """

    training: TableSummary
    tournament: TableSummary
    features: int
    feature_set: str
    target: str
    up_to_date: bool = False
    known_until: str | None = None

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {rows:,}" for kind, rows in sorted(self.tournament.data_types.items()))
        return (
            f"training {self.training.rows:,} rows in {self.training.eras:,} eras; tournament"
            f" {self.tournament.rows:,} rows ({kinds}); {self.features:,} features ({self.feature_set}), target"
            f" {self.target!r}"
        )

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for XCom."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> UnpackedDataset:
        """Restore the summary from the result of :meth:`to_json`."""
        tables = {name: TableSummary(**content[name]) for name in ("training", "tournament")}
        return cls(**{**content, **tables})


def unpack(
    raw: RawDataset,
    layout: RunLayout,
    *,
    feature_set: str,
    target: str | None,
    every_nth_era: int,
    inputs: str,
    embargo: int | None = None,
    force: bool = False,
) -> UnpackedDataset:
    """Write the run's training and tournament tables from its raw files.

    The tournament rows of a walk-forward run are those of a past era. Their true targets are written to a separate
    table, ``targets.parquet``; in the tournament table they are unknown, as they were at that time.

    Parameters
    ----------
    raw : RawDataset
        The verified raw files.
    layout : RunLayout
        Paths of the tables. They appear only after all checks; the manifests are written last.
    feature_set : str
        Feature set of ``features.json``; ignored for an archive, which has one set only.
    target : str or None
        The target to learn; None for the dataset's default, which is logged.
    every_nth_era : int
        Train on every n-th era only, counted backwards from the newest era, which is kept. Eras are ordered by their
        numbers. The tournament table has all eras.
    inputs : str
        Hash of the inputs of the tables: the raw files and the parameters above.
    embargo : int, optional
        Eras between training and the era of a walk-forward run; by default determined by the target's name.
    force : bool
        Write the tables again even if they are up to date.

    Returns
    -------
    UnpackedDataset
        Counts of both tables.

    Raises
    ------
    NotFoundError
        When a raw file, the feature set or the target does not exist.
    BadInputError
        When a raw file is invalid: the message names file, row, column, value and remedy.
    DiskFullError
        When the volume has not enough space.
    """
    if every_nth_era < 1:
        msg = f"every_nth_era={every_nth_era}: must be 1 (all eras) or more"
        raise BadInputError(msg)
    with _translate_os_errors(layout.directory):
        layout.directory.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(layout.directory, "unpacking the same data", beside=False):
            _remove_scratch(layout)
            if not force and (known := _up_to_date(layout, inputs)):
                log.info("up to date: %s", known)
                return known
            raw.verify_checksums(role for role in raw.files if role not in benchmarks.ROLES)
            scratch = Path(tempfile.mkdtemp(prefix=f".{_SCRATCH}.", suffix=".part", dir=layout.directory))
            try:
                with ExitStack() as opened:
                    plan = make_plan(raw, opened, scratch, feature_set=feature_set, target=target, embargo=embargo)
                    unpacked = _write_tables(plan, layout, every_nth_era, inputs)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    log.info("unpacked: %s", unpacked)
    return unpacked


@contextmanager
def _translate_os_errors(directory: Path) -> Iterator[None]:
    try:
        with translate_disk_errors(directory):
            yield
    except OSError as error:
        msg = f"the operating system failed while unpacking into {directory}: {error}"
        raise PipelineError(msg) from error


def _up_to_date(layout: RunLayout, inputs: str) -> UnpackedDataset | None:
    manifests = [verified_manifest(path, inputs=inputs) for path in (layout.training, layout.tournament)]
    if not all(manifests) or manifests[0] is None:
        return None
    try:
        known = UnpackedDataset.from_json({**manifests[0].about["unpacked"], "up_to_date": True})
    except (KeyError, TypeError):
        return None
    if known.known_until is not None and verified_manifest(layout.targets, inputs=inputs) is None:
        return None
    return known


def _remove_scratch(layout: RunLayout) -> None:
    """Remove the working directory of a killed attempt, which may have finished the tables before."""
    for leftover in layout.directory.glob(f".{_SCRATCH}.*.part"):
        shutil.rmtree(leftover)


def _write_tables(plan: DatasetPlan, layout: RunLayout, every_nth_era: int, inputs: str) -> UnpackedDataset:
    ids = DuplicateIdDetector()
    kept_eras = _subsample_eras(plan.training, every_nth_era) if every_nth_era > 1 else None
    paths = (layout.training, layout.tournament, *([layout.targets] if plan.walk_forward else []))
    with ExitStack() as finishing:
        training, tournament, *targets = (finishing.enter_context(atomic_path(path)) for path in paths)
        training_stats = _write_table(training, plan.training, plan.schema, _drop_unlabeled, ids, kept_eras)
        _require_two_classes(plan.training[0].source.name, plan.schema.target, training_stats)
        hidden: list[Any] = []
        tournament_stats = _write_table(
            tournament, plan.tournament, plan.schema, _mask_targets(hidden) if plan.walk_forward else _identity, ids
        )
        for path in targets:
            pq.write_table(pa.Table.from_batches(hidden), path)
        log.info("searching for duplicate ids")
        ids.check(plan.sources)
        # from here on, existing tables no longer count as finished
        for path in paths:
            manifest_path(path).unlink(missing_ok=True)
    unpacked = UnpackedDataset(
        TableSummary.of(training_stats),
        TableSummary.of(tournament_stats),
        len(plan.schema.features),
        plan.schema.feature_set,
        plan.schema.target,
        known_until=max(training_stats.eras, key=lambda era: era_number(era) or 0) if plan.walk_forward else None,
    )
    _write_manifests(layout, unpacked, plan.schema, inputs)
    return unpacked


def _write_manifests(layout: RunLayout, unpacked: UnpackedDataset, schema: TableSchema, inputs: str) -> None:
    log.info("writing the manifests")
    columns, about = list(schema.arrow_schema.names), {"unpacked": unpacked.to_json()}
    rows = {layout.training: unpacked.training.rows, layout.tournament: unpacked.tournament.rows}
    try:
        if unpacked.known_until is not None:
            write_manifest(layout.targets, rows=unpacked.tournament.rows, columns=list(TARGET_COLUMNS), inputs=inputs)
        for path, count in rows.items():
            write_manifest(path, rows=count, columns=columns, inputs=inputs, about=about)
    except BaseException:
        for path in (*rows, layout.targets):
            discard(path)
        raise


def _subsample_eras(training: Sequence[RowFilter], every_nth_era: int) -> set[str]:
    """Select every n-th training era, counted backwards from the newest."""
    eras = {
        era
        for part in training
        for values in part.source.read_text("era")
        for era in pc.unique(values).to_pylist()
        if era and part.includes(era)
    }
    # an era without a number is reported, with its row, when the rows are read
    numbers = {era: number for era in eras if (number := era_number(era)) is not None}
    kept = set(sorted(set(numbers.values()), reverse=True)[::every_nth_era])
    name = training[0].source.name
    log.info("%s: training on %d of %d eras, every %dth", name, len(kept), len(numbers), every_nth_era)
    return {era for era, number in numbers.items() if number in kept}


def _write_table(
    path: Path,
    parts: Sequence[RowFilter],
    schema: TableSchema,
    finish: Callable[[Any, TableStats], Any],
    ids: DuplicateIdDetector,
    kept_eras: set[str] | None = None,
) -> TableStats:
    """Check, select and write the rows of one table; ``finish`` converts each batch."""
    stats = TableStats()
    with TableWriter(path, schema) as writer:
        for part in parts:
            source = part.source
            progress = Progress(log, source.name, source.rows, "rows")
            missing: Counter[str] = Counter()
            row, rows_before = 1, stats.rows
            for raw_batch in source.read(schema):
                check_rows(raw_batch, schema, part.allowed, RowLocation(source.name, row))
                row += raw_batch.num_rows
                progress.advance(raw_batch.num_rows)
                # ids of eras that are not used are checked, too: a duplicate is a sign of a damaged file
                selected = part.select(raw_batch)
                ids.add(selected["id"])
                batch = finish(fill_missing(part.select(selected, kept_eras)), stats)
                if batch.num_rows:
                    stats.count(batch)
                    missing.update(count_missing(batch, schema))
                    writer.write(batch)
            if row == 1:
                msg = f"{source.name}: there is no row of data: download it again"
                raise BadInputError(msg)
            log.info("%s: %s rows read", source.name, f"{row - 1:,}")
            stats.missing += missing.total()
            _warn_of_empty_features(source.name, missing, stats.rows - rows_before)
    if stats.missing:
        log.warning("%s feature values are missing and become NaN", f"{stats.missing:,}")
    if stats.without_target:
        log.warning("%s training rows have no target and are not used", f"{stats.without_target:,}")
    return stats


def _warn_of_empty_features(file: str, missing: Counter[str], rows: int) -> None:
    """Log the features that have no value in any row of a file, for all column types."""
    empty = [name for name, count in missing.items() if count == rows]
    if empty:
        features = "feature has" if len(empty) == 1 else "features have"
        log.warning(
            "%s: %d %s no value in any of the %s rows: %s", file, len(empty), features, f"{rows:,}", abbreviate(empty)
        )


def _identity(batch: Any, _stats: TableStats) -> Any:
    return batch


def _mask_targets(collected: list[Any]) -> Callable[[Any, TableStats], Any]:
    """Return a converter that collects ids, eras and targets in a list and replaces the targets by unknown ones."""

    def mask(batch: Any, _stats: TableStats) -> Any:
        collected.append(batch.select(list(TARGET_COLUMNS)))
        return with_unknown_targets(batch)

    return mask


def _drop_unlabeled(batch: Any, stats: TableStats) -> Any:
    """Drop the rows whose target is unknown."""
    unknown = pc.is_nan(batch["target"])
    count: int = pc.sum(unknown).as_py() or 0
    if count:
        stats.without_target += count
        batch = batch.filter(pc.invert(unknown))
    return batch


def _require_two_classes(file: str, target: str, stats: TableStats) -> None:
    if stats.above and stats.below:
        return
    if not stats.rows:
        found = f"none of {stats.without_target:,} rows has a known target"
    else:
        found = f"of {stats.rows:,} rows, {stats.above:,} are above 0.5 and {stats.below:,} below"
    msg = f"{file}: column {target!r}: {found}, but training needs both classes: choose another target or dataset"
    raise BadInputError(msg)
