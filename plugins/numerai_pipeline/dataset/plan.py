"""Selects the raw files, the features and the target of a run's tables.

It reads headers, ``features.json`` and, of int8 features, whether values are missing.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

import pyarrow as pa
import pyarrow.compute as pc

from numerai_pipeline.core.eras import default_embargo, week_of_era
from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.dataset.archive import extract
from numerai_pipeline.dataset.csv_source import CsvSource
from numerai_pipeline.dataset.parquet_source import ParquetSource
from numerai_pipeline.dataset.selection import RowFilter
from numerai_pipeline.dataset.tables import (
    KEYS,
    TOURNAMENT_TYPES,
    TRAINING_TYPES,
    RowSource,
    TableSchema,
    abbreviate,
    era_number,
    require_columns,
)
from numerai_pipeline.storage.disk import require_free_space

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from numerai_pipeline.dataset.raw import RawDataset

log = logging.getLogger(__name__)

TRAINING_CSV = "numerai_training_data.csv"
TOURNAMENT_CSV = "numerai_tournament_data.csv"
ARCHIVE_FEATURE_SET = "all"


@dataclass(frozen=True)
class DatasetPlan:
    """The rows and columns of the tables.

    Attributes
    ----------
    schema : TableSchema
        Features, target and metadata of both tables.
    training, tournament : sequence of RowFilter
        The rows of each table, in order.
    walk_forward : bool
        Whether the tournament rows are of a past era: their targets are known, and hidden from the models.
    """

    schema: TableSchema
    training: Sequence[RowFilter]
    tournament: Sequence[RowFilter]
    walk_forward: bool = False

    @property
    def sources(self) -> list[RowSource]:
        """The files of the rows, without repetition."""
        return list({id(part.source): part.source for part in (*self.training, *self.tournament)}.values())


def make_plan(
    raw: RawDataset,
    opened: ExitStack,
    scratch: Path,
    *,
    feature_set: str,
    target: str | None,
    embargo: int | None = None,
) -> DatasetPlan:
    """Select the inputs of the tables, and check that they exist.

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
    embargo : int, optional
        Eras between training and the era of a walk-forward run; by default determined by the target's name.

    Raises
    ------
    NotFoundError
        When a file, the feature set or the target does not exist.
    BadInputError
        When a file is damaged or lacks a required column.
    DiskFullError
        When the volume has not enough space.
    """
    if raw.kind == "archive":
        return _plan_archive(raw, scratch, target)
    return _plan_v5(raw, opened, scratch, feature_set, target, embargo)


def _plan_archive(raw: RawDataset, scratch: Path, target: str | None) -> DatasetPlan:
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
    require_columns(tournament.name, [*KEYS, chosen], tournament.columns)
    _require_same_features(training, tournament, features)
    schema = TableSchema(dict.fromkeys(features, pa.float32()), chosen, ARCHIVE_FEATURE_SET, raw.source)
    return DatasetPlan(schema, [RowFilter(training, TRAINING_TYPES)], [RowFilter(tournament, TOURNAMENT_TYPES)])


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


def _plan_v5(
    raw: RawDataset, opened: ExitStack, scratch: Path, feature_set: str, target: str | None, embargo: int | None
) -> DatasetPlan:
    wanted, targets = _read_features_json(raw.path("features"), feature_set)
    training, validation, *live = sources = [
        opened.enter_context(ParquetSource(raw.path(role)))
        for role in ("train", "validation", "live")
        if role in raw.files
    ]
    for source in sources:
        require_columns(source.name, [*KEYS, *wanted], source.columns)
    targets = _order_targets(training, targets, target)
    if target is None and raw.payout_days is not None:
        target = payout_target(training, targets, raw.payout_days)
    chosen = _choose_target("features.json", targets, target)
    for source in (training, validation):
        require_columns(source.name, [chosen], source.columns)
    in_set = set(wanted)
    features = [name for name in training.columns if name in in_set]
    needed = sum(source.packed_bytes([*KEYS, *features, chosen]) for source in sources)
    require_free_space(scratch, needed, "writing the run's tables")
    schema = TableSchema(_feature_types(features, sources), chosen, feature_set, raw.source)
    if raw.era is not None:
        return plan_walk_forward(schema, training, validation, raw.era, embargo)
    tournament = [RowFilter(source, TOURNAMENT_TYPES) for source in (validation, *live)]
    return DatasetPlan(schema, [RowFilter(training, TRAINING_TYPES)], tournament)


def _order_targets(training: ParquetSource, listed: list[str], wanted: str | None) -> list[str]:
    """List the available targets, the default first.

    The default is ``target``, otherwise the first listed target that the training file has. A requested target need not
    be listed if the training file has it.
    """
    in_file = [name for name in training.columns if name.startswith("target")]
    targets = [name for name in ("target", *listed) if name in training.columns] or in_file
    if wanted is not None and (wanted in listed or wanted in in_file):
        targets.append(wanted)
    if not targets:
        require_columns(training.name, [wanted or "target"], training.columns)
    return list(dict.fromkeys(targets))


def plan_walk_forward(
    schema: TableSchema, training: RowSource, validation: RowSource, era: int, embargo: int | None
) -> DatasetPlan:
    """Select the rows that were known when an era was live, and the rows of that era to predict.

    Parameters
    ----------
    schema : TableSchema
    training, validation : RowSource
        Today's files, which include later eras.
    era : int
        The era to predict.
    embargo : int, optional
        Eras between the last training era and this one; by default determined by the target's name.

    Raises
    ------
    NotFoundError
        When the files do not have this era, or no training era before it.
    """
    if embargo is None:
        embargo = default_embargo(schema.target)
    last = era - embargo - 1
    known = {source: _era_numbers(source) for source in (training, validation)}
    available = set().union(*known.values())
    if era not in available:
        msg = (
            f"{training.name} and {validation.name} do not have era {era:04d}, the week of {week_of_era(era)}: a"
            f" walk-forward run needs a week between {week_of_era(min(available))} and {week_of_era(max(available))}"
        )
        raise NotFoundError(msg)
    if min(available) > last:
        msg = (
            f"no training data for era {era:04d}: the dataset begins with era {min(available):04d} and training must"
            f" end with era {last:04d}, {embargo} eras before: choose a later week, or a smaller embargo"
        )
        raise NotFoundError(msg)
    log.info(
        "walk-forward: training on eras %04d to %04d, embargo of %d eras, predicting era %04d (the week of %s)",
        min(available),
        last,
        embargo,
        era,
        week_of_era(era),
    )
    return DatasetPlan(
        schema,
        [
            RowFilter(source, allowed, range(last + 1), "train")
            for source, allowed in ((training, TRAINING_TYPES), (validation, TOURNAMENT_TYPES))
            if min(known[source], default=era) <= last
        ],
        [
            RowFilter(source, allowed, range(era, era + 1), "live")
            for source, allowed in ((training, TRAINING_TYPES), (validation, TOURNAMENT_TYPES))
            if era in known[source]
        ],
        walk_forward=True,
    )


def _era_numbers(source: RowSource) -> set[int]:
    eras = {era for values in source.read_text("era") for era in pc.unique(values).to_pylist() if era}
    return {number for era in eras if (number := era_number(era)) is not None}


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


def _feature_types(features: list[str], sources: Sequence[ParquetSource]) -> dict[str, Any]:
    """Return int8 for features that are int8 without missing values in each file, else float32 for NaN."""
    complete = {name for name in features if all(source.columns[name] == pa.int8() for source in sources)}
    for source in sources:
        complete -= source.columns_with_nulls(complete)
    if len(complete) < len(features):
        others = [name for name in features if name not in complete]
        log.info("%d of %d features are float32, not int8: %s", len(others), len(features), abbreviate(others))
    return {name: pa.int8() if name in complete else pa.float32() for name in features}
