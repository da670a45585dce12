"""The training data of pipelines, and the allocation of the container's resources."""

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

from ._budget import DEFAULT_MEMORY, base_memory, min_memory, search_rows, table_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._budget import SearchPlan

_EMBEDDINGS = (Embedding(5),)


class TrainingData(NamedTuple):
    """The training data of pipelines.

    Attributes
    ----------
    tables : SplitTables
        The source of the data.
    preprocessing : sklearn.pipeline.Pipeline
        Fitted imputation and standardisation. It precedes every pipeline; scikit-learn's own steps, since it is part of
        the exported module.
    features : numpy.ndarray of float32, shape (rows, columns)
        Preprocessed.
    labels : numpy.ndarray of int8, shape (rows,)
        0 and 1.
    folds : numpy.ndarray of int, shape (rows,)
        The fold in which a row is held out, from 0; `eras.NO_FOLD` for the rows between the folds, which only the fit
        of the best pipeline uses.
    """

    tables: SplitTables
    preprocessing: Any
    features: NDArray[np.float32]
    labels: NDArray[np.int8]
    folds: NDArray[np.intp]


def load(task: Task, plan: SearchPlan) -> TrainingData:
    """Read and preprocess the training rows, and divide them into folds."""
    tables = load_tables(task, search_rows(len(task.training.feature_names)))
    preprocessing = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), StandardScaler())
    features = preprocessing.fit_transform(tables.training_features())
    folds = _folds(task, plan, tables.training_labels, task.training.era_numbers[tables.training])
    return TrainingData(tables, preprocessing, features, tables.training_labels, folds)


def load_tables(task: Task, row_limit: int) -> SplitTables:
    """Select the training rows: those of the split's training part, or of both tables in the final fit.

    `row_limit` is the default of ROW_LIMIT.
    """
    return SplitTables(task, targets.classes(task.training), embeddings=_EMBEDDINGS, row_limit=row_limit)


def _folds(task: Task, plan: SearchPlan, labels: NDArray[np.int8], era_numbers: NDArray[np.int32]) -> NDArray[np.intp]:
    folds = eras.assign_folds(era_numbers, plan.folds, task.parameters.embargo)
    if folds is not None and _has_both_classes(folds, labels):
        return folds
    task.note(f"too few eras for {plan.folds} folds of eras: using random folds")
    folds = np.empty(len(labels), dtype=np.intp)
    random = np.random.default_rng(plan.seed)
    for label in (0, 1):
        rows = random.permutation(np.flatnonzero(labels == label))
        folds[rows] = np.arange(len(rows)) % plan.folds
    if not _has_both_classes(folds, labels):
        raise BadDataError(
            f"{task.training.path.name}: column 'target' has hardly more than one value in {len(labels):,} rows; "
            f"{plan.folds} folds (FOLDS) need more rows of both classes. Is the training set complete?"
        )
    return folds


def fold_marks(folds: NDArray[np.intp]) -> Iterator[tuple[NDArray[np.bool_], NDArray[np.bool_]]]:
    """Yield marks of the rows to learn from and of the rows to predict, of each fold."""
    for fold in np.unique(folds[folds != eras.NO_FOLD]):
        held_out = folds == fold
        yield ~held_out & (folds != eras.NO_FOLD), held_out


def _has_both_classes(folds: NDArray[np.intp], labels: NDArray[np.int8]) -> bool:
    """Check that the training rows have both classes for every held-out fold."""
    return all(0 < labels[learned].mean() < 1 for learned, _ in fold_marks(folds))


class ResourceBudget(NamedTuple):
    """The allocation of the container: `jobs` pipelines at a time, `memory` MiB each beside their shared memory."""

    jobs: int
    memory: int

    @property
    def whole_memory(self) -> int:
        """MiB of one pipeline that runs alone."""
        return self.jobs * self.memory


def allocate(task: Task, data: TrainingData) -> ResourceBudget:
    """Allocate cores and memory: fewer pipelines at a time rather than pipelines with too little memory."""
    limit, threads = task.parameters.memory_limit, task.parameters.threads
    if limit is None:
        return ResourceBudget(threads, DEFAULT_MEMORY)
    rows, columns = data.features.shape
    table = table_size(rows, columns)
    minimum, base = min_memory(table), base_memory(task.sizes, table)
    task.require_memory(base + minimum, f"TPOT and {rows:,} rows of {columns:,} columns")
    jobs = max(1, min(threads, int((limit - base) // minimum)))
    if jobs < threads:
        task.note(f"{jobs} of {threads} cores used: more pipelines at a time do not fit into {limit:,} MiB")
    return ResourceBudget(jobs, int((limit - base) // jobs))
