"""What pipelines learn from, and how the container is shared out among them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from numerai_contract import eras, targets
from numerai_contract.embeddings import Embedding
from numerai_contract.exits import BadDataError
from numerai_contract.split_tables import SplitTables

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._plan import Plan

_EMBEDDINGS = (Embedding(5),)
_MOST_NUMBERS, _MOST_ROWS = 2_000_000, 40_000
# MiB this process takes, and bytes for each row of either table
_OWN_MEMORY, _OWN_MEMORY_OF_A_ROW = 400, 800
# MiB a pipeline needs at least, and what each may take where nobody set a limit
_LEAST_MEMORY, _USUAL_MEMORY = 300, 3_072


class Lesson(NamedTuple):
    """What pipelines learn from.

    Attributes
    ----------
    tables : SplitTables
        Where it is from, and what is to be predicted.
    preparation : sklearn.pipeline.Pipeline
        Fitted: fills in what is missing and standardises. It comes before every pipeline.
    features : numpy.ndarray of float32, shape (rows, columns)
        Prepared.
    labels : numpy.ndarray of int8, shape (rows,)
        0 and 1.
    folds : numpy.ndarray of int, shape (rows,)
        On which fold a row is judged, from 0 on.
    """

    tables: SplitTables
    preparation: Any
    features: NDArray[np.float32]
    labels: NDArray[np.int8]
    folds: NDArray[np.intp]


def read_lesson(task: Task, plan: Plan) -> Lesson:
    """Read the rows to learn from, filled in and standardised, and cut them into folds."""
    usual = min(max(_MOST_NUMBERS // len(task.training.feature_names), 1_000), _MOST_ROWS)
    tables = SplitTables(task, targets.classes(task.training), embeddings=_EMBEDDINGS, row_limit=usual)
    preparation = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    features = preparation.fit_transform(tables.training_features())
    folds = _folds(task, plan, tables.training_labels, task.training.era_numbers[tables.training])
    return Lesson(tables, preparation, features, tables.training_labels, folds)


def _folds(task: Task, plan: Plan, labels: NDArray[np.int8], era_numbers: NDArray[np.int32]) -> NDArray[np.intp]:
    folds = eras.folds(era_numbers, plan.folds)
    if folds is not None and _both_classes_are_left(folds, labels):
        return folds
    task.note(f"too few eras for {plan.folds} folds of eras: folds are drawn by chance")
    folds = np.empty(len(labels), dtype=np.intp)
    random = np.random.default_rng(plan.seed)
    for label in (0, 1):
        rows = random.permutation(np.flatnonzero(labels == label))
        folds[rows] = np.arange(len(rows)) % plan.folds
    if not _both_classes_are_left(folds, labels):
        raise BadDataError(
            f"{task.training.path.name}: column 'target' has hardly more than one value in {len(labels):,} rows; "
            f"{plan.folds} folds (FOLDS) need more of both. Is the training set complete?"
        )
    return folds


def _both_classes_are_left(folds: NDArray[np.intp], labels: NDArray[np.int8]) -> bool:
    """Say whether there are both classes to learn from, whichever fold is held out."""
    return all(0 < labels[folds != fold].mean() < 1 for fold in np.unique(folds))


class Room(NamedTuple):
    """How the container is shared out: `jobs` pipelines at once, `memory` MiB each beside what they share."""

    jobs: int
    memory: int


def share_out(task: Task, lesson: Lesson) -> Room:
    """Share out cores and memory: fewer pipelines at once rather than ones too small to learn anything."""
    limit, threads = task.parameters.memory_limit, task.parameters.threads
    if limit is None:
        return Room(threads, _USUAL_MEMORY)
    rows, columns = lesson.features.shape
    table = lesson.features.nbytes >> 20
    read = len(task.training) + len(task.tournament)
    least, own = _LEAST_MEMORY + 4 * table, _OWN_MEMORY + table + (read * _OWN_MEMORY_OF_A_ROW >> 20)
    task.need_memory(own + least, f"TPOT and {rows:,} rows of {columns:,} columns")
    jobs = max(1, min(threads, (limit - own) // least))
    if jobs < threads:
        task.note(f"{jobs} of {threads} cores used: more pipelines at once would not fit into {limit:,} MiB")
    return Room(jobs, (limit - own) // jobs)
