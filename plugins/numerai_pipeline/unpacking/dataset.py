"""Raw files → the run's two tables.

A zip of the classic layout or today's parquet files: both end in ``training.parquet`` and ``tournament.parquet`` of the
one form that every model image reads (``tables.py``). ``dataset_plan.py`` chooses the files, columns and target;
``row_checks.py`` and ``identifiers.py`` check the rows.
"""

from __future__ import annotations

import fcntl
import logging
import os
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

from numerai_pipeline.disk import translate_disk_errors
from numerai_pipeline.errors import BadInputError, PipelineError
from numerai_pipeline.manifests import atomic_path, discard, manifest_path, verified_manifest, write_manifest
from numerai_pipeline.progress import Progress
from numerai_pipeline.unpacking import references
from numerai_pipeline.unpacking.dataset_plan import DatasetPlan, make_plan
from numerai_pipeline.unpacking.identifiers import DuplicateIdDetector
from numerai_pipeline.unpacking.row_checks import RowLocation, check_rows
from numerai_pipeline.unpacking.selection import RowFilter, with_unknown_targets
from numerai_pipeline.unpacking.tables import (
    TableSchema,
    TableStats,
    TableWriter,
    abbreviate,
    count_missing,
    era_number,
    fill_missing,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numerai_pipeline.raw_dataset import RawDataset
    from numerai_pipeline.run_layout import RunLayout

log = logging.getLogger(__name__)

TARGET_COLUMNS = ("id", "era", "target")
"""Columns of the table of true targets."""
_SCRATCH = "unpacked"


@dataclass(frozen=True)
class TableSummary:
    """What a table holds.

    Attributes
    ----------
    rows : int
        Rows.
    eras : int
        Different eras.
    data_types : dict
        Data type → rows.
    missing : int
        Feature values that are missing (NaN).
    without_target : int
        Rows left out because their target is unknown; training only.
    """

    rows: int
    eras: int
    data_types: dict[str, int]
    missing: int
    without_target: int

    @classmethod
    def of(cls, facts: TableStats) -> TableSummary:
        """Sum up what was seen."""
        return cls(facts.rows, len(facts.eras), dict(facts.data_types), facts.missing, facts.without_target)


@dataclass(frozen=True)
class UnpackedDataset:
    """What the run's tables hold.

    Attributes
    ----------
    training, tournament : TableSummary
        The two tables.
    features : int
        Feature columns, the same in both.
    feature_set : str
        Name of the feature set; ``all`` for an archive.
    target : str
        The source's name of the target; in the tables it is called ``target``.
    up_to_date : bool
        Whether the tables were there already, made from the same inputs.
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
        """Plain values, as XCom keeps them."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> UnpackedDataset:
        """Build it again from :meth:`to_json`'s answer."""
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
    """Make the run's training and tournament tables from its raw files.

    A walk-forward run's tournament rows are those of an era that is over. Their true targets go to a table of their
    own, ``targets.parquet``; in the tournament table they are unknown, as they were then.

    Parameters
    ----------
    raw : RawDataset
        The verified raw files.
    layout : RunLayout
        Where the tables go. Nothing is there before everything is right; the manifests come last.
    feature_set : str
        Feature set of ``features.json``; an archive has one set only, and this is passed over.
    target : str or None
        The target to learn; None for the dataset's default, which the log names.
    every_nth_era : int
        Train on every n-th era only, counted from the newest era backwards, so that the newest stays. Eras are ordered
        by their numbers. The tournament table is never thinned.
    inputs : str
        Hash of everything that decides the tables: the raw files and the parameters above.
    embargo : int, optional
        Eras left out between training and the era of a walk-forward run; by the target's name when left out.
    force : bool
        Make the tables again even if they are up to date.

    Returns
    -------
    UnpackedDataset
        Counts of both tables.

    Raises
    ------
    NotFoundError
        When a raw file, the feature set or the target does not exist.
    BadInputError
        When a raw file is not as it must be: the message names file, row, column, value and what to do.
    DiskFullError
        When the tables do not fit on the volume.
    """
    if every_nth_era < 1:
        msg = f"every_nth_era={every_nth_era}: must be 1 (all eras) or more"
        raise BadInputError(msg)
    with _translate_os_errors(layout.directory):
        layout.directory.mkdir(parents=True, exist_ok=True)
        with _alone_in(layout.directory):
            _remove_scratch(layout)
            if not force and (known := _up_to_date(layout, inputs)):
                log.info("up to date: %s", known)
                return known
            raw.verify_checksums(role for role in raw.files if role not in references.ROLES)
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


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """Let one process at a time unpack into a folder: runs with the same settings share theirs.

    The lock is the kernel's and ends with its process, so a killed task never leaves one behind.
    """
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another run is unpacking the same data into %s: waiting for it", directory)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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
    """Remove the working directory of a killed attempt: it may have had time to finish all but that."""
    for left in layout.directory.glob(f".{_SCRATCH}.*.part"):
        shutil.rmtree(left)


def _write_tables(plan: DatasetPlan, layout: RunLayout, every_nth_era: int, inputs: str) -> UnpackedDataset:
    ids = DuplicateIdDetector()
    kept_eras = _subsample_eras(plan.training, every_nth_era) if every_nth_era > 1 else None
    paths = (layout.training, layout.tournament, *([layout.targets] if plan.walk_forward else []))
    with ExitStack() as finishing:
        training, tournament, *targets = (finishing.enter_context(atomic_path(path)) for path in paths)
        training_facts = _write_table(training, plan.training, plan.form, _drop_unlabeled, ids, kept_eras)
        _require_two_classes(plan.training[0].source.name, plan.form.target, training_facts)
        hidden: list[Any] = []
        tournament_facts = _write_table(
            tournament, plan.tournament, plan.form, _mask_targets(hidden) if plan.walk_forward else _identity, ids
        )
        for path in targets:
            pq.write_table(pa.Table.from_batches(hidden), path)
        log.info("looking for ids that are there twice")
        ids.check(plan.sources)
        # from here on the old tables, if any, are no longer finished ones
        for path in paths:
            manifest_path(path).unlink(missing_ok=True)
    unpacked = UnpackedDataset(
        TableSummary.of(training_facts),
        TableSummary.of(tournament_facts),
        len(plan.form.features),
        plan.form.feature_set,
        plan.form.target,
        known_until=max(training_facts.eras, key=lambda era: era_number(era) or 0) if plan.walk_forward else None,
    )
    _write_manifests(layout, unpacked, plan.form, inputs)
    return unpacked


def _write_manifests(layout: RunLayout, unpacked: UnpackedDataset, form: TableSchema, inputs: str) -> None:
    log.info("writing the manifests")
    columns, about = list(form.schema.names), {"unpacked": unpacked.to_json()}
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
    """Pick every n-th of the training eras, counted from the newest backwards."""
    eras = {
        era
        for part in training
        for values in part.source.read_text("era")
        for era in pc.unique(values).to_pylist()
        if era and part.includes(era)
    }
    # an era without a number is refused, with its row, when the rows are read
    numbers = {era: number for era in eras if (number := era_number(era)) is not None}
    kept = set(sorted(set(numbers.values()), reverse=True)[::every_nth_era])
    name = training[0].source.name
    log.info("%s: training on %d of %d eras, every %dth", name, len(kept), len(numbers), every_nth_era)
    return {era for era, number in numbers.items() if number in kept}


def _write_table(
    path: Path,
    parts: Sequence[RowFilter],
    form: TableSchema,
    finish: Callable[[Any, TableStats], Any],
    ids: DuplicateIdDetector,
    kept_eras: set[str] | None = None,
) -> TableStats:
    """Check, choose and write the rows of one table, each batch as ``finish`` makes it."""
    facts = TableStats()
    with TableWriter(path, form) as writer:
        for part in parts:
            source = part.source
            progress = Progress(log, source.name, source.rows, "rows")
            missing: Counter[str] = Counter()
            row, rows_before = 1, facts.rows
            for raw_batch in source.read(form):
                check_rows(raw_batch, form, part.allowed, RowLocation(source.name, row))
                row += raw_batch.num_rows
                progress.advance(raw_batch.num_rows)
                # the ids of rows thinned out count: they tell a damaged file all the same
                taken = part.pick(raw_batch)
                ids.add(taken["id"])
                batch = finish(fill_missing(part.pick(taken, kept_eras)), facts)
                if batch.num_rows:
                    facts.count(batch)
                    missing.update(count_missing(batch, form))
                    writer.write(batch)
            if row == 1:
                msg = f"{source.name}: there is not one row of data: download it again"
                raise BadInputError(msg)
            log.info("%s: %s rows read", source.name, f"{row - 1:,}")
            facts.missing += missing.total()
            _warn_of_empty_features(source.name, missing, facts.rows - rows_before)
    if facts.missing:
        log.warning("%s feature values are missing and become NaN", f"{facts.missing:,}")
    if facts.without_target:
        log.warning("%s training rows have no target and are left out", f"{facts.without_target:,}")
    return facts


def _warn_of_empty_features(file: str, missing: Counter[str], rows: int) -> None:
    """Log which features have no value in any of a file's rows, whatever type the file gives them."""
    empty = [name for name, count in missing.items() if count == rows]
    if empty:
        features = "feature has" if len(empty) == 1 else "features have"
        log.warning(
            "%s: %d %s no value in any of the %s rows: %s", file, len(empty), features, f"{rows:,}", abbreviate(empty)
        )


def _identity(batch: Any, _facts: TableStats) -> Any:
    return batch


def _mask_targets(kept: list[Any]) -> Callable[[Any, TableStats], Any]:
    """Put the targets away, with ids and eras, and leave unknown ones in their place."""

    def hide(batch: Any, _facts: TableStats) -> Any:
        kept.append(batch.select(list(TARGET_COLUMNS)))
        return with_unknown_targets(batch)

    return hide


def _drop_unlabeled(batch: Any, facts: TableStats) -> Any:
    """Keep the rows whose target is known."""
    unknown = pc.is_nan(batch["target"])
    count: int = pc.sum(unknown).as_py() or 0
    if count:
        facts.without_target += count
        batch = batch.filter(pc.invert(unknown))
    return batch


def _require_two_classes(file: str, target: str, facts: TableStats) -> None:
    if facts.above and facts.below:
        return
    if not facts.rows:
        found = f"not one of {facts.without_target:,} rows has a known target"
    else:
        found = f"of {facts.rows:,} rows {facts.above:,} lie above 0.5 and {facts.below:,} below"
    msg = f"{file}: column {target!r}: {found}, but learning needs both classes: choose another target or dataset"
    raise BadInputError(msg)
