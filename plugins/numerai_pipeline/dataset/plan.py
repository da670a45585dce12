"""Selects the raw files, the rows, the features and the target of a dataset and of a live table.

It reads headers, ``features.json``, which eras have known targets and, of int8 features, whether values are missing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc

from numerai_pipeline.core.eras import default_embargo, refit_era, week_of_era
from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.core.parameters import without_target
from numerai_pipeline.dataset.archive import extract
from numerai_pipeline.dataset.csv_source import CsvSource
from numerai_pipeline.dataset.parquet_source import ParquetSource
from numerai_pipeline.dataset.selection import RowFilter
from numerai_pipeline.dataset.tables import (
    KEYS,
    LIVE_TYPES,
    TARGET,
    TOURNAMENT_TYPES,
    TRAINING_TYPES,
    VALIDATION_TYPES,
    RowSource,
    TableSchema,
    abbreviate,
    era_number,
    is_known,
    require_columns,
)
from numerai_pipeline.storage.disk import require_free_space

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from numerai_pipeline.dataset.raw import RawDataset
    from numerai_pipeline.dataset.store import Dataset

log = logging.getLogger(__name__)

TRAINING_CSV = "numerai_training_data.csv"
TOURNAMENT_CSV = "numerai_tournament_data.csv"
ARCHIVE_FEATURE_SET = "all"
# the last fifth of the eras is held out; a file's validation eras are used where they are a tenth of all
_HELD_OUT = 5
_LEAST_VALIDATION = 10


@dataclass(frozen=True)
class DatasetPlan:
    """The rows and columns of a dataset.

    Attributes
    ----------
    schema : TableSchema
        Features, target and metadata of both tables.
    embargo : int
        Eras between the last known era and the first one predicted.
    training, validation : sequence of RowFilter
        The rows of each table, in order.
    """

    schema: TableSchema
    embargo: int
    training: Sequence[RowFilter]
    validation: Sequence[RowFilter]

    @property
    def sources(self) -> list[RowSource]:
        """The files of the rows, without repetition."""
        return list({id(part.source): part.source for part in (*self.training, *self.validation)}.values())


@dataclass(frozen=True)
class LivePlan:
    """The rows and columns of a run's live table.

    Attributes
    ----------
    schema : TableSchema
        The dataset's features, each with its type in the live table.
    parts : sequence of RowFilter
        The rows, in order.
    """

    schema: TableSchema
    parts: Sequence[RowFilter]


def plan_dataset(
    raw: RawDataset,
    opened: ExitStack,
    scratch: Path,
    *,
    feature_set: str,
    target: str | None,
    targets: Sequence[str] = (),
    embargo: int | None = None,
    refit_every: int = 1,
) -> DatasetPlan:
    """Select the inputs of a dataset, and check that they exist.

    Parameters
    ----------
    raw : RawDataset
        The raw files.
    opened : ExitStack
        Keeps the files of the plan open.
    scratch : Path
        An empty folder on the data volume, removed by the caller, into which an archive is unpacked.
    feature_set : str
        Feature set of ``features.json``; ignored for an archive.
    target : str or None
        Target to learn; None for the default, which is logged.
    targets : sequence of str
        Further targets.
    embargo : int, optional
        Weeks between training and the first era predicted; by default determined by the targets' names: that of the
        target with the longest horizon. None between the eras of an archive, which are months, longer than its targets
        look ahead (Numerai's forum, "Super Massive Data Release: Deep Dive").
    refit_every : int
        Weeks that share the dataset of a walk-forward run.

    Raises
    ------
    NotFoundError
        When a file, the feature set, a target or the era does not exist.
    BadInputError
        When a file is damaged, lacks a required column or has fewer than two eras.
    DiskFullError
        When the volume has not enough space.
    """
    if raw.kind == "archive":
        return _plan_archive(raw, scratch, target, targets, embargo)
    wanted, listed = _read_features_json(raw.path("features"), feature_set)
    training, validation = (opened.enter_context(ParquetSource(raw.path(role))) for role in ("train", "validation"))
    for source in (training, validation):
        require_columns(source.name, KEYS, source.columns)
        _require_feature_set(source, feature_set, wanted)
    available = _order_targets(training, listed, [target, *targets])
    if target is None and raw.payout_days is not None:
        target = payout_target(training, available, raw.payout_days)
    chosen = _choose_target("features.json", available, target)
    further = _choose_further("features.json", available, targets, chosen)
    if chosen == TARGET and (same := training.columns_equal_to(TARGET, further)):
        log.info("%s: the column %r has the values of %s", training.name, TARGET, ", ".join(same))
        further = without_target(further, *same)
    for source in (training, validation):
        require_columns(source.name, [chosen, *further], source.columns)
    in_set = set(wanted)
    features = [name for name in training.columns if name in in_set]
    needed = sum(source.packed_bytes([*KEYS, *features, chosen, *further]) for source in (training, validation))
    require_free_space(scratch, needed, "writing the dataset's tables")
    embargo = max(map(default_embargo, (chosen, *further))) if embargo is None else embargo
    if raw.era is None:
        parts = _split(training, validation, chosen)
    else:
        parts = plan_walk_forward(training, validation, chosen, raw.era, embargo, refit_every)
    types = _feature_types(features, [*parts[0], *parts[1]])
    schema = TableSchema(types, chosen, feature_set, raw.source, further)
    return DatasetPlan(schema, embargo, *parts)


def _plan_archive(
    raw: RawDataset, scratch: Path, target: str | None, wanted: Sequence[str], embargo: int | None
) -> DatasetPlan:
    archive = raw.path("archive")
    files = extract(archive, scratch / "archive")
    training_file, tournament_file = (_member(archive, files, name) for name in (TRAINING_CSV, TOURNAMENT_CSV))
    training, tournament = CsvSource(training_file), CsvSource(tournament_file)
    require_columns(training.name, KEYS, training.columns)
    features = [name for name in training.columns if name.startswith("feature")]
    if not features:
        msg = f"{training.name}: no column starts with 'feature' (found: {abbreviate(training.columns)})"
        raise BadInputError(f"{msg}. Is this a Numerai dataset?")
    targets = [name for name in training.columns if name.startswith("target")]
    if not targets:
        require_columns(training.name, [target or "target"], training.columns)
    chosen = _choose_target(training.name, targets, target)
    further = _choose_further(training.name, targets, wanted, chosen)
    require_columns(tournament.name, [*KEYS, chosen, *further], tournament.columns)
    _require_same_features(training, tournament, features)
    schema = TableSchema(dict.fromkeys(features, pa.float32()), chosen, ARCHIVE_FEATURE_SET, raw.source, further)
    return DatasetPlan(schema, embargo or 0, *_split(training, tournament, chosen))


def plan_live(raw: RawDataset, opened: ExitStack, scratch: Path, dataset: Dataset) -> LivePlan:
    """Select the rows to predict, and check that they have the dataset's features.

    Parameters
    ----------
    raw : RawDataset
        The raw files; of ``v5`` only the live file is needed, except in a walk-forward run.
    opened, scratch
        See :func:`plan_dataset`.
    dataset : Dataset
        The dataset that the run's models are fitted on.

    Raises
    ------
    NotFoundError
        When a file or the era does not exist.
    BadInputError
        When a file is damaged, or lacks a feature or another required column.
    DiskFullError
        When the volume has not enough space.
    """
    features = list(dataset.features)
    if raw.kind == "archive":
        archive = raw.path("archive")
        tournament = CsvSource(_member(archive, extract(archive, scratch / "archive"), TOURNAMENT_CSV))
        require_columns(tournament.name, KEYS, tournament.columns)
        _require_features(tournament, dataset)
        parts = [RowFilter(tournament, TOURNAMENT_TYPES, data_types=LIVE_TYPES)]
        types = dict.fromkeys(features, pa.float32())
    else:
        roles = ["live"] if raw.era is None else ["train", "validation"]
        sources = [opened.enter_context(ParquetSource(raw.path(role))) for role in roles]
        for source in sources:
            require_columns(source.name, KEYS, source.columns)
            _require_features(source, dataset)
        needed = sum(source.packed_bytes([*KEYS, *features]) for source in sources) if raw.era is None else 0
        require_free_space(scratch, needed, "writing the live table")
        parts = [RowFilter(sources[0], ("live",))] if raw.era is None else _rows_of_era(sources[0], sources[1], raw.era)
        types = _feature_types(features, parts)
    return LivePlan(TableSchema(types, dataset.target, dataset.feature_set, dataset.source), parts)


def _require_feature_set(source: ParquetSource, feature_set: str, wanted: list[str]) -> None:
    missing = [name for name in wanted if name not in source.columns]
    if len(missing) > 1:
        msg = (
            f"{source.name}: {len(missing):,} of the {len(wanted):,} features of the set {feature_set!r} are missing:"
            f" {abbreviate(missing, 5)}. Choose another feature set. The simulator generates this one with"
            f" --feature-set {feature_set}"
        )
        raise BadInputError(msg)
    require_columns(source.name, wanted, source.columns)


def _require_features(source: RowSource, dataset: Dataset) -> None:
    missing = [name for name in dataset.features if name not in source.columns]
    if missing:
        columns = f"column {missing[0]!r} is" if len(missing) == 1 else f"columns {abbreviate(missing, 5)} are"
        msg = (
            f"{source.name}: {columns} missing, but dataset {dataset.key} ({dataset.version}, feature set"
            f" {dataset.feature_set!r}) has {len(dataset.features):,} features: choose version {dataset.version}, or"
            " make a new fit (parameter `fit`: `always`)"
        )
        raise BadInputError(msg)


def _split(training: RowSource, validation: RowSource, target: str) -> tuple[Sequence[RowFilter], Sequence[RowFilter]]:
    """Divide the files' rows into training and validation; hold training eras out where no validation row is known."""
    _, known = _eras(validation, target, VALIDATION_TYPES)
    everything = RowFilter(training, TRAINING_TYPES)
    if known:
        return [everything], [RowFilter(validation, TOURNAMENT_TYPES, data_types=VALIDATION_TYPES)]
    numbers = _numbers(_eras(training, target, TRAINING_TYPES)[1])
    if len(numbers) < 2:
        msg = (
            f"{validation.name} has no validation row with a known target {target!r}, and {training.name} has"
            f" {len(numbers)} eras with one, but two are needed to hold one out: choose another target or dataset"
        )
        raise BadInputError(msg)
    log.info("%s: no validation row with a known target", validation.name)
    return _hold_out({training: everything}, {training: numbers})


def _hold_out(
    parts: Mapping[RowSource, RowFilter], known: Mapping[RowSource, set[int]]
) -> tuple[Sequence[RowFilter], Sequence[RowFilter]]:
    """Divide eras with known targets into training and, the last fifth, validation."""
    numbers = sorted(set().union(*known.values()))
    held_out = numbers[-max(1, len(numbers) // _HELD_OUT) :]
    first, last = held_out[0], held_out[-1]
    log.info("the validation table is the last fifth of %d eras: %04d to %04d", len(numbers), first, last)

    def part_of(eras: range, new_type: str) -> list[RowFilter]:
        return [
            replace(part, eras=eras, new_type=new_type)
            for source, part in parts.items()
            if any(number in eras for number in known[source])
        ]

    return part_of(range(first), "train"), part_of(range(first, last + 1), "validation")


def _eras(source: RowSource, target: str, data_types: Sequence[str]) -> tuple[set[str], set[str]]:
    """Return all eras of a file, and those with a known target in a row of one of these data types."""
    every: set[str] = set()
    known: set[str] = set()
    for batch in source.read_columns(["era", "data_type"], [target]):
        every.update(pc.unique(batch["era"]).to_pylist())
        wanted = pc.is_in(batch["data_type"], value_set=pa.array(data_types, pa.string()))
        known.update(pc.unique(batch["era"].filter(pc.and_(wanted, is_known(batch[target])))).to_pylist())
    return every, known


def _numbers(eras: Iterable[str | None]) -> set[int]:
    return {number for era in eras if era and (number := era_number(era)) is not None}


def _member(archive: Path, files: list[Path], wanted: str) -> Path:
    """Find a file of the classic layout by the end of its name, in any folder."""
    found = [file for file in files if file.name.casefold().endswith(wanted)]
    if len(found) == 1:
        return found[0]
    names = sorted(file.name for file in found or files)
    problem = "has no" if not found else f"has {len(found)} files that could be"
    msg = (
        f"{archive.name}: {problem} {wanted} (found: {abbreviate(names)}). Is this a Numerai dataset of the"
        " classic layout?"
    )
    raise BadInputError(msg)


def _require_same_features(training: CsvSource, tournament: CsvSource, features: list[str]) -> None:
    others = {name for name in tournament.columns if name.startswith("feature")}
    only_training, only_tournament = [name for name in features if name not in others], sorted(others - set(features))
    if only_training or only_tournament:
        msg = (
            f"{training.name} and {tournament.name} have different features: only in training"
            f" {abbreviate(only_training)}; only in tournament {abbreviate(only_tournament)}. Are they of one round?"
        )
        raise BadInputError(msg)


def _choose_target(file: str, targets: Sequence[str], wanted: str | None) -> str:
    if wanted is None:
        log.info("%s: using the default target %r of: %s", file, targets[0], abbreviate(targets))
        return targets[0]
    if wanted not in targets:
        msg = f"{file}: target {wanted!r} does not exist: choose one of {', '.join(targets)}"
        raise NotFoundError(msg)
    return wanted


def _choose_further(file: str, targets: Sequence[str], wanted: Sequence[str], main: str) -> tuple[str, ...]:
    for name in wanted:
        _choose_target(file, targets, name)
    return without_target(wanted, main)


def _order_targets(training: ParquetSource, listed: list[str], wanted: Sequence[str | None]) -> list[str]:
    """List the available targets, the default first.

    The default is ``target``, otherwise the first listed target that the training file has. A wanted target need not be
    listed if the training file has it.
    """
    in_file = [name for name in training.columns if name.startswith("target")]
    targets = [name for name in ("target", *listed) if name in training.columns] or in_file
    targets += [name for name in wanted if name is not None and (name in listed or name in in_file)]
    if not targets:
        require_columns(training.name, [wanted[0] or "target"], training.columns)
    return list(dict.fromkeys(targets))


def plan_walk_forward(
    training: RowSource, validation: RowSource, target: str, era: int, embargo: int, refit_every: int
) -> tuple[Sequence[RowFilter], Sequence[RowFilter]]:
    """Select the rows that were known when the fit of an era was made: training and validation.

    The files' boundary divides them where validation has at least a tenth of the known eras; otherwise the last fifth
    of the known eras is the validation table.

    Parameters
    ----------
    training, validation : RowSource
        Today's files, which include later eras.
    target : str
        The target.
    era : int
        The era to predict.
    embargo : int
        Eras between the last known era and the first one that the fit predicts.
    refit_every : int
        Weeks that share a fit.

    Raises
    ------
    NotFoundError
        When the files do not have this era, or fewer than two known eras before it.
    """
    data_types = {training: TRAINING_TYPES, validation: VALIDATION_TYPES}
    found = {source: _eras(source, target, types) for source, types in data_types.items()}
    _require_era(era, {source: _numbers(every) for source, (every, _) in found.items()})
    first = refit_era(era, refit_every)
    last = first - embargo - 1
    known = {source: {number for number in _numbers(eras) if number <= last} for source, (_, eras) in found.items()}
    count = len(known[training] | known[validation])
    if count < 2:
        msg = (
            f"no training data for era {era:04d}: training must end with era {max(last, 0):04d}, {embargo} eras before"
            f" era {first:04d}, and the dataset has {count} eras with known targets until then, but training and"
            " validation need two: choose a later week, or a smaller embargo"
        )
        raise NotFoundError(msg)
    log.info(
        "walk-forward: known are eras %04d to %04d, embargo of %d eras, predicting era %04d (the week of %s)",
        min(known[training] | known[validation]),
        last,
        embargo,
        era,
        week_of_era(era),
    )
    eras = range(last + 1)
    parts = {
        training: RowFilter(training, TRAINING_TYPES, eras),
        validation: RowFilter(validation, TOURNAMENT_TYPES, eras, VALIDATION_TYPES),
    }
    if known[training] and len(known[validation]) * _LEAST_VALIDATION >= count:
        return [parts[training]], [parts[validation]]
    return _hold_out(parts, known)


def _rows_of_era(training: RowSource, validation: RowSource, era: int) -> list[RowFilter]:
    """Select the rows of a past era, to predict them as live rows."""
    allowed = {training: TRAINING_TYPES, validation: TOURNAMENT_TYPES}
    available = {
        source: _numbers(value for values in source.read_text("era") for value in pc.unique(values).to_pylist())
        for source in allowed
    }
    _require_era(era, available)
    return [
        RowFilter(source, allowed[source], range(era, era + 1), new_type="live")
        for source in allowed
        if era in available[source]
    ]


def _require_era(era: int, available: Mapping[RowSource, set[int]]) -> None:
    numbers = set().union(*available.values())
    if era not in numbers:
        files = " and ".join(source.name for source in available)
        msg = (
            f"{files} do not have era {era:04d}, the week of {week_of_era(era)}: a walk-forward run needs a week"
            f" between {week_of_era(min(numbers))} and {week_of_era(max(numbers))}"
        )
        raise NotFoundError(msg)


def payout_target(training: ParquetSource, targets: Sequence[str], days: int) -> str | None:
    """Find the payout target of a round among the targets that look this number of days ahead; None if ambiguous.

    Several kinds of target look 20 days ahead. The column ``target`` identifies the kind that Numerai uses: it equals
    one of the named targets, and the payout target is the one of that kind with the right number of days.

    Parameters
    ----------
    training : ParquetSource
        The training file.
    targets : sequence of str
        All targets of the dataset.
    days : int
        Days ahead that the payout target looks.
    """
    of_length = [name for name in targets if name.endswith(f"_{days}") and training.has_numbers(name)]
    if len(of_length) > 1 and training.has_numbers("target"):
        named = [name for name in targets if name != "target" and training.has_numbers(name)]
        same = training.columns_equal_to("target", named)
        kinds = {name.rpartition("_")[0] for name in same}
        of_length = [name for name in of_length if name.rpartition("_")[0] in kinds]
    if len(of_length) != 1:
        log.info("cannot determine which dataset target is the %d-day payout target; using the default", days)
        return None
    log.info("the payout target of the round looks %d days ahead: %s", days, of_length[0])
    return of_length[0]


def _read_features_json(path: Path, feature_set: str) -> tuple[list[str], list[str]]:
    """Read the features of a set and the names of the targets; other sets are not checked.

    Returns
    -------
    features : list of str
        Each once, in the file's order.
    targets : list of str
        Each once; empty where the file lists none.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        msg = f"{path} does not exist: run the download again"
        raise NotFoundError(msg) from None
    except (ValueError, RecursionError) as error:
        msg = f"{path.name}: not JSON ({error}): download it again"
        raise BadInputError(msg) from None
    sets = content.get("feature_sets") if isinstance(content, dict) else None
    targets = content.get("targets") if isinstance(content, dict) else None
    if not isinstance(sets, dict):
        msg = f"{path.name}: 'feature_sets' must map the name of a set to a list of features. Is this Numerai's file?"
        raise BadInputError(msg)
    usable = {name: names for name, names in sets.items() if _are_names(names)}
    if feature_set not in usable:
        choices = ", ".join(f"{name} ({len(names):,})" for name, names in usable.items()) or "none"
        if feature_set not in sets:
            msg = f"{path.name}: feature set {feature_set!r} does not exist: choose one of {choices}"
            raise NotFoundError(msg)
        problem = "is empty" if sets[feature_set] == [] else "is not a list of names"
        msg = f"{path.name}: the feature set {feature_set!r} {problem}: choose one of {choices}"
        raise BadInputError(msg)
    if len(usable) < len(sets):
        others = [name for name in sets if name not in usable]
        log.info("%s: feature sets without a list of names, ignored: %s", path.name, abbreviate(others))
    reserved = [name for name in usable[feature_set] if not name.startswith("feature")]
    if reserved:
        msg = f"{path.name}: {reserved[0]!r} in the set {feature_set!r} does not start with 'feature'"
        raise BadInputError(f"{msg}. Is this Numerai's file?")
    return list(dict.fromkeys(usable[feature_set])), _read_targets(path.name, targets)


def _read_targets(file: str, targets: object) -> list[str]:
    listed = targets if isinstance(targets, list) else []
    names = [name for name in listed if isinstance(name, str) and name and name not in KEYS]
    if not names:
        log.info("%s: 'targets' lists no target: those of the training file are used", file)
    elif len(names) < len(listed):
        log.info("%s: entries of 'targets' that name no target, ignored: %d", file, len(listed) - len(names))
    return list(dict.fromkeys(names))


def _are_names(names: object) -> TypeGuard[list[str]]:
    return isinstance(names, list) and bool(names) and all(isinstance(name, str) and name for name in names)


def _feature_types(features: list[str], parts: Sequence[RowFilter]) -> dict[str, Any]:
    """Return int8 for features that are int8 without missing values in the selected eras, else float32 for NaN."""
    files = [(part.source, part) for part in parts if isinstance(part.source, ParquetSource)]
    complete = {name for name in features if all(source.columns[name] == pa.int8() for source, _ in files)}
    for source, part in files:
        complete -= source.columns_with_nulls(complete, None if part.eras is None else part.select_eras)
    if len(complete) < len(features):
        others = [name for name in features if name not in complete]
        log.info("%d of %d features are float32, not int8: %s", len(others), len(features), abbreviate(others))
    return {name: pa.int8() if name in complete else pa.float32() for name in features}
