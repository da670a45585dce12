"""Converts the raw files to the tables: training and validation of a dataset, and the live table of a run.

Both data layouts, a zip of the classic layout and today's parquet files, are converted to tables of one schema, which
the model images read (``tables.py``). ``plan.py`` selects the files, rows, columns and target; ``row_checks.py`` and
``id_checks.py`` check the rows.
"""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from numerai_pipeline.core.eras import refit_era, target_days
from numerai_pipeline.core.errors import BadInputError, NotFoundError, PipelineError
from numerai_pipeline.core.parameters import without_target
from numerai_pipeline.dataset.id_checks import DuplicateIdDetector
from numerai_pipeline.dataset.plan import DatasetPlan, LivePlan, plan_dataset, plan_live
from numerai_pipeline.dataset.row_checks import RowLocation, check_rows, require_complete_int8
from numerai_pipeline.dataset.selection import RowFilter, in_eras, with_unknown_targets
from numerai_pipeline.dataset.store import Dataset, DatasetRequest, TableSummary
from numerai_pipeline.dataset.tables import (
    LIVE_TYPES,
    TableSchema,
    TableStats,
    TableWriter,
    abbreviate,
    count_missing,
    era_number,
    fill_missing,
    is_known,
)
from numerai_pipeline.storage.directories import atomic_directory, remove_directory
from numerai_pipeline.storage.disk import translate_disk_errors
from numerai_pipeline.storage.layout import DatasetLayout, fingerprint
from numerai_pipeline.storage.locks import exclusive_lock
from numerai_pipeline.storage.manifests import atomic_path, discard, manifest_path, verified_manifest, write_manifest
from numerai_pipeline.storage.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numerai_pipeline.dataset.raw import RawDataset
    from numerai_pipeline.storage.layout import DataLayout, RunLayout

log = logging.getLogger(__name__)

TARGET_COLUMNS = ("id", "era", "target")
"""Columns of the table of true targets."""
# part of each key: raise it when equal inputs give other tables than before
_FORMAT = 1
_SCRATCH = "unpacked"
_DATASET_ROLES = {"archive": ("archive",), "v5": ("features", "train", "validation")}


@dataclass(frozen=True)
class LiveSummary:
    """Summary of a run's live table.

    Attributes
    ----------
    rows : int
        Rows.
    eras : list of str
        Their eras, sorted.
    data_types : dict
        Data type → rows.
    missing : int
        Missing feature values (NaN).
    up_to_date : bool
        Whether the table existed already, from the same inputs.
    """

    rows: int
    eras: list[str]
    data_types: dict[str, int]
    missing: int
    up_to_date: bool = False

    def __str__(self) -> str:
        kinds = ", ".join(f"{kind} {rows:,}" for kind, rows in sorted(self.data_types.items()))
        return f"live {self.rows:,} rows ({kinds}) of era {abbreviate(self.eras)}"

    def to_json(self) -> dict[str, Any]:
        """Convert to plain values for XCom."""
        return asdict(self)


def find_or_make_dataset(
    raw: RawDataset,
    data: DataLayout,
    *,
    feature_set: str,
    target: str | None,
    every_nth_era: int,
    targets: Sequence[str] = (),
    embargo: int | None = None,
    refit_every: int = 1,
) -> Dataset:
    """Return the dataset of the raw files and parameters; make it where it does not exist.

    A dataset that exists is returned without reading the raw files. Of several processes that need the same dataset,
    one makes it and the others wait.

    Parameters
    ----------
    raw : RawDataset
        The verified raw files.
    data : DataLayout
        The data volume.
    feature_set : str
        Feature set of ``features.json``; ignored for an archive, which has one set only.
    target : str or None
        The target to learn; None for the dataset's default, which is logged.
    every_nth_era : int
        Train on every n-th era only, counted backwards from the newest training era, which is kept. Eras are ordered by
        their numbers. The validation table has all eras.
    targets : sequence of str
        Further targets, each a column of both tables; the rows are those with a known main target, as without them.
    embargo : int, optional
        Weeks to leave out between training and the rows to predict; by default determined by the target's name, of
        several targets by the one with the longest horizon.
    refit_every : int
        Weeks that share the dataset of a walk-forward run: it has the data known in the first of them.

    Returns
    -------
    Dataset
        The finished dataset.

    Raises
    ------
    NotFoundError
        When a raw file, the feature set, a target or the era does not exist.
    BadInputError
        When a raw file is invalid: the message names file, row, column, value and remedy.
    DiskFullError
        When the volume has not enough space.
    """
    for name, value in (("every_nth_era", every_nth_era), ("refit_every", refit_every)):
        if value < 1:
            msg = f"{name}={value}: must be 1 or more"
            raise BadInputError(msg)
    made_from = _checksums(raw, _DATASET_ROLES[raw.kind], "a new dataset")
    payout_days = raw.payout_days if target is None else None
    further = without_target(targets, target)
    request = DatasetRequest(feature_set, target, every_nth_era, embargo, payout_days, further)
    known_before = None if raw.era is None else refit_era(raw.era, refit_every)
    key = fingerprint(
        {
            "format": _FORMAT,
            "source": raw.source,
            "version": raw.version,
            "made_from": made_from,
            "known_before": known_before,
            **request.to_json(),
        }
    )
    layout = data.dataset(key)
    with _translate_os_errors(data.datasets_root):
        data.datasets_root.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(layout.directory, "making the same dataset"):
            if found := _find(layout):
                log.info("up to date: %s", found)
                return found
            raw.verify_checksums(made_from)
            with atomic_directory(layout.directory) as temporary:
                with ExitStack() as opened:
                    scratch = temporary / _SCRATCH
                    scratch.mkdir()
                    plan = plan_dataset(
                        raw,
                        opened,
                        scratch,
                        feature_set=feature_set,
                        target=target,
                        targets=further,
                        embargo=embargo,
                        refit_every=refit_every,
                    )
                    training, validation = _write_tables(plan, DatasetLayout(temporary), every_nth_era)
                shutil.rmtree(scratch)
                dataset = Dataset(
                    key=key,
                    layout=layout,
                    source=raw.source,
                    version=raw.version,
                    round=raw.round,
                    created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    request=request,
                    made_from=made_from,
                    known_before=known_before,
                    feature_set=plan.schema.feature_set,
                    features=_type_names(plan.schema),
                    target=plan.schema.target,
                    further_targets=plan.schema.further_targets,
                    target_days=target_days(plan.schema.target),
                    embargo=plan.embargo,
                    known_until=f"{max(training.newest, validation.newest):04d}",
                    training=TableSummary.of(training),
                    validation=TableSummary.of(validation),
                )
                content = json.dumps(dataset.to_json(), indent=1) + "\n"
                DatasetLayout(temporary).metadata.write_text(content, encoding="utf-8")
    log.info("made: %s", dataset)
    return dataset


def _checksums(raw: RawDataset, roles: Sequence[str], needed_by: str) -> dict[str, str]:
    """Return the SHA-256 of the raw files with these roles."""
    missing = ", ".join(role for role in roles if role not in raw.files)
    if missing:
        msg = f"{needed_by} needs {missing}, which the run has not downloaded: clear `download` and run it again"
        raise NotFoundError(msg)
    return {role: raw.files[role].sha256 for role in roles}


def _type_names(schema: TableSchema) -> dict[str, str]:
    return {name: "int8" if kind == pa.int8() else "float32" for name, kind in schema.features.items()}


def _find(layout: DatasetLayout) -> Dataset | None:
    """Read a finished dataset; remove a damaged one."""
    if not layout.directory.exists():
        return None
    try:
        dataset = Dataset.read(layout)
    except (NotFoundError, BadInputError) as error:
        log.warning("%s", error)
    else:
        if all(verified_manifest(path) for path in (layout.training, layout.validation)):
            return dataset
        log.warning("%s: its tables do not match their manifests; making it again", layout.directory)
    remove_directory(layout.directory)
    return None


def write_live(raw: RawDataset, dataset: Dataset, layout: RunLayout) -> LiveSummary:
    """Write the table of the rows that a run predicts.

    The features are the dataset's, in its order: int8 where the raw file has that type and no missing value, otherwise
    float32. The targets are unknown (NaN). In a walk-forward run, the rows are those of a past era, and their true
    targets are written to a separate table, ``targets.parquet``.

    Parameters
    ----------
    raw : RawDataset
        The verified raw files. Of ``v5`` only ``live`` is read, except in a walk-forward run.
    dataset : Dataset
        The dataset that the run's models are fitted on.
    layout : RunLayout
        Paths of the tables. They appear only after all checks; the manifests are written last.

    Returns
    -------
    LiveSummary
        Counts of the table.

    Raises
    ------
    NotFoundError
        When a raw file or the era does not exist.
    BadInputError
        When a raw file is invalid or lacks a feature: the message names file, column and remedy.
    DiskFullError
        When the volume has not enough space.
    """
    roles = _live_roles(raw)
    made_from = _checksums(raw, roles, "the live table")
    inputs = fingerprint({"format": _FORMAT, "dataset": dataset.key, "era": raw.era, "made_from": made_from})
    paths = [layout.live] if raw.era is None else [layout.targets, layout.live]
    with _translate_os_errors(layout.directory):
        layout.directory.mkdir(parents=True, exist_ok=True)
        with exclusive_lock(layout.directory, "writing the same live table", beside=False):
            for leftover in layout.directory.glob(f".{_SCRATCH}.*.part"):
                shutil.rmtree(leftover)
            if known := _known_live(layout, paths, inputs):
                log.info("up to date: %s", known)
                return known
            raw.verify_checksums(roles)
            scratch = Path(tempfile.mkdtemp(prefix=f".{_SCRATCH}.", suffix=".part", dir=layout.directory))
            try:
                with ExitStack() as opened:
                    plan = plan_live(raw, opened, scratch, dataset)
                    summary = _write_live(plan, paths, inputs)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
    log.info("written: %s", summary)
    return summary


def _live_roles(raw: RawDataset) -> tuple[str, ...]:
    if raw.kind == "archive":
        return ("archive",)
    return ("live",) if raw.era is None else ("train", "validation")


def _known_live(layout: RunLayout, paths: Sequence[Path], inputs: str) -> LiveSummary | None:
    manifests = [verified_manifest(path, inputs=inputs) for path in paths]
    if not all(manifests) or (manifest := manifests[-1]) is None:
        return None
    try:
        return LiveSummary(**{**manifest.about[layout.live.stem], "up_to_date": True})
    except (KeyError, TypeError):
        return None


def _write_live(plan: LivePlan, paths: Sequence[Path], inputs: str) -> LiveSummary:
    *targets, live = paths
    ids = DuplicateIdDetector()
    hidden: list[Any] = []
    with ExitStack() as finishing:
        *temporary_targets, temporary = (finishing.enter_context(atomic_path(path)) for path in paths)
        stats = _write_table(temporary, plan.parts, plan.schema, _mask_targets(hidden), ids)
        if not stats.rows:
            source = plan.parts[0].source.name
            types = " or ".join(LIVE_TYPES)
            msg = f"{source}: there is no row of type {types} to predict: choose another round or file"
            raise BadInputError(msg)
        for path in temporary_targets:
            pq.write_table(pa.Table.from_batches(hidden), path)
        ids.check(list({id(part.source): part.source for part in plan.parts}.values()))
        # from here on, existing tables no longer count as finished
        for path in paths:
            manifest_path(path).unlink(missing_ok=True)
    summary = LiveSummary(stats.rows, sorted(stats.eras), dict(stats.data_types), stats.missing)
    try:
        for path in targets:
            write_manifest(path, rows=stats.rows, columns=list(TARGET_COLUMNS), inputs=inputs)
        columns = list(plan.schema.arrow_schema.names)
        write_manifest(live, rows=stats.rows, columns=columns, inputs=inputs, about={live.stem: summary.to_json()})
    except BaseException:
        for path in paths:
            discard(path)
        raise
    return summary


@contextmanager
def _translate_os_errors(directory: Path) -> Iterator[None]:
    try:
        with translate_disk_errors(directory):
            yield
    except OSError as error:
        msg = f"the operating system failed while unpacking into {directory}: {error}"
        raise PipelineError(msg) from error


def _write_tables(plan: DatasetPlan, layout: DatasetLayout, every_nth_era: int) -> tuple[TableStats, TableStats]:
    ids = DuplicateIdDetector()
    kept_eras = _subsample_eras(plan.training, every_nth_era) if every_nth_era > 1 else None
    training = _write_table(layout.training, plan.training, plan.schema, _drop_unlabeled, ids, kept_eras)
    if training.without_target:
        log.warning("%s training rows have no target and are not used", f"{training.without_target:,}")
    for column, target in plan.schema.targets.items():
        _require_two_classes(plan.training[0].source.name, column, target, training)
    validation = _write_table(layout.validation, plan.validation, plan.schema, _count_unlabeled, ids)
    log.info("searching for duplicate ids")
    ids.check(plan.sources)
    log.info("writing the manifests")
    for path, stats in ((layout.training, training), (layout.validation, validation)):
        write_manifest(path, rows=stats.rows, columns=list(plan.schema.arrow_schema.names))
    return training, validation


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
    with TableWriter(path, schema.arrow_schema) as writer:
        for part in parts:
            source = part.source
            progress = Progress(log, source.name, source.rows, "rows")
            missing: Counter[str] = Counter()
            row, rows_before, other_types = 1, stats.rows, 0
            for raw_batch in source.read(schema):
                check_rows(raw_batch, schema, part.allowed, RowLocation(source.name, row))
                row += raw_batch.num_rows
                progress.advance(raw_batch.num_rows)
                # ids of rows that are not used are checked, too: a duplicate is a sign of a damaged file
                in_eras_of_part = part.select_eras(raw_batch)
                ids.add(in_eras_of_part["id"])
                selected = part.select_types(in_eras_of_part)
                other_types += in_eras_of_part.num_rows - selected.num_rows
                if kept_eras is not None:
                    selected = in_eras(selected, kept_eras)
                require_complete_int8(selected, schema, source.name)
                batch = finish(part.with_new_type(fill_missing(selected)), stats)
                if batch.num_rows:
                    stats.count(batch, schema.targets)
                    missing.update(count_missing(batch, schema))
                    writer.write(batch)
            if row == 1:
                msg = f"{source.name}: there is no row of data: download it again"
                raise BadInputError(msg)
            log.info("%s: %s rows read", source.name, f"{row - 1:,}")
            if other_types and part.data_types:
                wanted = ", ".join(part.data_types)
                log.info("%s: %s rows have other types than %s", source.name, f"{other_types:,}", wanted)
            stats.missing += missing.total()
            _warn_of_empty_features(source.name, missing, stats.rows - rows_before)
    path.chmod(0o644)
    if stats.missing:
        log.warning("%s feature values are missing and become NaN", f"{stats.missing:,}")
    return stats


def _warn_of_empty_features(file: str, missing: Counter[str], rows: int) -> None:
    """Log the features that have no value in any row of a file, for all column types."""
    empty = [name for name, count in missing.items() if count == rows]
    if empty:
        features = "feature has" if len(empty) == 1 else "features have"
        log.warning(
            "%s: %d %s no value in any of the %s rows: %s", file, len(empty), features, f"{rows:,}", abbreviate(empty)
        )


def _mask_targets(collected: list[Any]) -> Callable[[Any, TableStats], Any]:
    """Return a converter that collects ids, eras and targets in a list and replaces the targets by unknown ones."""

    def mask(batch: Any, _stats: TableStats) -> Any:
        collected.append(batch.select(list(TARGET_COLUMNS)))
        return with_unknown_targets(batch)

    return mask


def _drop_unlabeled(batch: Any, stats: TableStats) -> Any:
    """Drop the rows whose target is unknown."""
    known = is_known(batch["target"])
    return batch if _add_unlabeled(known, stats) == 0 else batch.filter(known)


def _count_unlabeled(batch: Any, stats: TableStats) -> Any:
    """Keep all rows, and count those whose target is unknown."""
    _add_unlabeled(is_known(batch["target"]), stats)
    return batch


def _add_unlabeled(known: Any, stats: TableStats) -> int:
    count = len(known) - (pc.sum(known).as_py() or 0)
    stats.without_target += count
    return count


def _require_two_classes(file: str, column: str, target: str, stats: TableStats) -> None:
    above, below = stats.above[column], stats.below[column]
    if above and below:
        return
    if not stats.rows:
        found = f"none of {stats.without_target:,} rows has a known target"
    else:
        found = f"of {stats.rows:,} rows, {above:,} are above 0.5 and {below:,} below"
    msg = f"{file}: column {target!r}: {found}, but training needs both classes: choose another target or dataset"
    raise BadInputError(msg)
