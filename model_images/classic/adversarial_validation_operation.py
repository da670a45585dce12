"""Adversarial validation: the training rows most similar to the later rows become the validation part of the split.

A classifier is trained to distinguish training rows from the later rows of the validation table. A training row that it
classifies as a later row is a better predictor of a model's performance than a random row. After Jim Fleming,
"Adversarial Validation" (2016), based on an idea of FastML. The rows to predict are not used, so that one split serves
all rounds of a fit.

The rows of both tables are divided into five stratified folds, and the rows of a fold are classified by a model that
was not trained on them. The predicted probability of a training row is its *similarity* to the later rows (its
propensity), and a share of the training rows with the highest similarity is the validation part of the split
(``split.parquet``).

Environment variables:

``METHOD`` (``gradient_boosting``)
    The classifier: ``gradient_boosting`` (XGBoost), ``extra_trees`` or ``random_forest``, 100 trees each. The forest is
    the one of 2016, grown to single rows: slow, and with at most a hundred different probabilities, so that the seed
    determines most of its order. benchmarks/fleming.py compares them.
``SPLIT_BY`` (``eras`` where eras are weeks, at least ten of them, else ``rows``)
    ``rows``, as in 2016, takes the most similar rows of all eras; the seed determines the order of rows with equal
    similarity. A model then learns from other rows of the same eras, and from eras whose targets overlap with theirs:
    where rows of an era have something in common, its score on the validation part is too high. ``eras`` takes the
    consecutive eras with the highest mean similarity, and leaves out the run's EMBARGO on both sides of them:
    consecutive, since an embargo around scattered eras would leave no training rows.
``VALIDATION_SHARE`` (0.1)
    The share of the validation part, from 0.01 to 0.5: of the training rows with a known target, or of their eras.
``FOLDS_BY`` (``rows``)
    ``eras`` keeps every era in one fold. When rows of an era have something in common, folds of rows let the classifier
    recognise eras instead of the changes over time: its AUC is then close to 1, and the similarity is meaningless. Use
    ``eras`` in this case; it needs five eras in the training table.
``ROW_LIMIT`` (200,000)
    Maximum rows of each table in the training; above it, a sample that keeps every era's share. All rows are
    classified. By default fewer where the memory of the task is too small for so many rows of all features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from numerai_contract import batches, eras, targets
from numerai_contract.exits import BadDataError
from numerai_contract.plans import Plan, largest
from numerai_contract.split import Split, read_split, write_split
from numerai_contract.tables import Table
from numerai_contract.task import TrainingSummary

from . import _drift_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Sizes
    from numerai_contract.task import Task

_UNITS = ("rows", "eras")
METHODS = ("gradient_boosting", "extra_trees", "random_forest")
# eras that are split by default: of fewer, one has more rows than the usual validation part
_MIN_ERAS = 10
_FOLDS = 5
_TREES = 100
_MIN_LEAF = 20
# the least rows of each table in a plan
_LEAST_ROWS = 1_000


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the classifiers' training; see `numerai_contract.plans`.

    Rows rather than features: the difference between two tables is large, compared with the effect of a feature on the
    target, and every feature may differ.
    """
    limit = _rows_of_each_table(parameters, sizes)
    return Plan(_sampled(sizes, limit), sizes.features, _need(sizes, limit))


def _rows_of_each_table(parameters: Parameters, sizes: Sizes) -> int:
    limit = parameters.get_int("ROW_LIMIT", 200_000, at_least=100, at_most=10_000_000)
    if "ROW_LIMIT" in parameters:
        return limit
    return largest(limit, _LEAST_ROWS, lambda rows: _need(sizes, rows), parameters.memory_limit)


def _sampled(sizes: Sizes, limit: int) -> int:
    return min(sizes.training, limit) + min(sizes.validation, limit)


def _need(sizes: Sizes, limit: int) -> float:
    # the interpreter and its libraries, and the tables; 30 bytes for each of their rows: fold, similarity, ROC curve
    memory = 400 + sizes.open_tables + 30 * sizes.rows / 2**20
    # float32: the sample, the training rows of a fold, and the copy that the classifier makes of them. XGBoost's is
    # smaller: 9.1 bytes a value in all with 60,000 rows of 780 features.
    return memory + 3 * _sampled(sizes, limit) * sizes.features * 4 / 2**20


def make(task: Task) -> TrainingSummary:
    """Compute the similarity of every training row, and write the split into the directory of the fit."""
    parameters, directory = task.parameters, task.model.path
    method = parameters.get_str("METHOD", METHODS[0], choices=METHODS)
    share = parameters.get_float("VALIDATION_SHARE", 0.1, at_least=0.01, at_most=0.5)
    folds_by = parameters.get_str("FOLDS_BY", "rows", choices=_UNITS)
    limit = _rows_of_each_table(parameters, task.sizes)
    task.follow(plan(parameters, task.sizes))
    # before the work: later tasks cannot use a table without known targets, or with a single target value
    known = targets.values(task.training).rows
    split_by = parameters.get_str("SPLIT_BY", _default_unit(task, known), choices=_UNITS)

    sides = _Sides(task)
    folds = _folds(sides, folds_by, parameters.seed)
    sample = _sample(task, sides, limit)
    classifiers = _fit(task, _classifier_factory(method, task), sides, sample, folds)
    similarity = _similarity(task, sides, classifiers, folds)

    aucs = [float(roc_auc_score(sides.is_later[folds == fold], similarity[folds == fold])) for fold in range(_FOLDS)]
    of_training = similarity[: len(task.training)]
    if split_by == "eras":
        split, embargo = _split_by_eras(task, of_training, known, share)
    else:
        split, embargo = Split(of_training, _most_similar(of_training, known, share, parameters.seed)), 0
    auc = float(np.mean(aucs))
    task.note(f"AUC {auc:.4f} (folds {', '.join(f'{each:.4f}' for each in aucs)}): {_describe_auc(auc)}")
    parts = {"training": split.training & known, "validation": split.validation}
    mean = {part: float(of_training[rows].mean()) for part, rows in parts.items()}
    task.note(
        f"{split.validation.sum():,} of {known.sum():,} training rows with a known target are the validation part; "
        f"their mean similarity is {mean['validation']:.4f}, that of the training part {mean['training']:.4f}"
    )
    curve = _drift_report.roc(sides.is_later, similarity)
    drift = _drift_report.drifting_features(task, [importances for _, importances in classifiers])
    _drift_report.plot_roc(directory / "plots" / "adversarial_validation.png", curve, auc)
    write_split(directory, task.training.ids, split, parameters.inputs)
    return TrainingSummary(
        training_rows=int(split.training.sum()),
        held_out_rows=int(split.validation.sum()),
        chosen={
            "method": method,
            "folds_by": folds_by,
            "split_by": split_by,
            "embargo_weeks": embargo,
            "validation_share": share,
            "auc": auc,
            "auc_of_folds": aucs,
            "mean_similarity": mean,
            "roc": curve._asdict(),
            "drifting_features": drift,
        },
        libraries=("scikit-learn", "scikit-learn-intelex", "xgboost-cpu"),
    )


def check_self_test(storing: Path) -> None:
    """Check the split that the self-test wrote.

    Raises
    ------
    BadDataError
        When the validation part has a wrong size.
    """
    training = Table(storing / "training.parquet")
    split = read_split(storing / "model", training)
    if abs(split.validation.mean() - 0.1) > 0.01:
        raise BadDataError(f"{split.validation.sum()} validation rows, of {len(training)}")


class _Sides:
    """The rows of the training table, and then the later rows, those of the validation table."""

    def __init__(self, task: Task) -> None:
        self.tables = (task.training, task.validation)
        before, later = (len(table) for table in self.tables)
        self.is_later = np.arange(before + later) >= before
        # eras of the two tables are different, even with the same number
        self.eras = np.concatenate([task.training.era_numbers, task.validation.era_numbers + 1_000_000_000])

    def __len__(self) -> int:
        return len(self.is_later)

    def batches(self, rows: NDArray[np.bool_] | None = None) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Read features a batch at a time, as `Table.batches` does; NaN where a value is missing."""
        first = 0
        for table in self.tables:
            wanted = None if rows is None else rows[first : first + len(table)]
            for positions, block in table.batches(wanted):
                yield positions + first, block.astype(np.float32, copy=False)
            first += len(table)


def _folds(sides: _Sides, folds_by: str, seed: int) -> NDArray[np.intp]:
    """Assign each row of both tables to a fold, each with rows of both; shape (rows,)."""
    smallest = min(sides.tables, key=len)
    if len(smallest) < _FOLDS:
        raise BadDataError(
            f"{smallest.path.name}: {len(smallest)} rows are too few; {_FOLDS} folds need one each. Is it complete?"
        )
    folds = np.empty(len(sides), dtype=np.intp)
    no_features = np.zeros((len(sides), 0))
    if folds_by == "eras":
        split = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(
            no_features, sides.is_later, sides.eras
        )
    else:
        split = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(no_features, sides.is_later)
    for fold, (_, held_out) in enumerate(split):
        folds[held_out] = fold
        if len(np.unique(sides.is_later[held_out])) < 2:
            counts = [f"{len(np.unique(table.era_numbers))} of {table.path.name}" for table in sides.tables]
            raise BadDataError(
                f"the eras, {' and '.join(counts)}, are not enough for {_FOLDS} folds with rows of both. Set "
                "FOLDS_BY=rows."
            )
    return folds


class _Sample(NamedTuple):
    rows: NDArray[np.intp]  # positions among the rows of both tables, ascending
    features: NDArray[np.float32]  # of these rows


def _sample(task: Task, sides: _Sides, limit: int) -> _Sample:
    """Read the training rows of the classifiers."""
    marks = np.concatenate(
        [
            eras.sample(table.era_numbers, np.zeros(len(table), dtype=np.int8), limit, seed=task.parameters.seed)
            for table in sides.tables
        ]
    )
    rows = np.flatnonzero(marks)
    if len(rows) < len(sides):
        task.note(f"learning from {len(rows):,} of {len(sides):,} rows, drawn evenly from all eras (ROW_LIMIT)")
    columns = len(task.training.feature_names)
    features = np.empty((len(rows), columns), dtype=np.float32)
    with task.progress.step(f"reading {len(rows):,} rows"):
        filled = 0
        for positions, block in sides.batches(marks):
            features[filled : filled + len(positions)] = block
            filled += len(positions)
    return _Sample(rows, features)


def _classifier_factory(method: str, task: Task) -> Callable[[], Any]:
    """Return a factory of the method's classifiers; only the library of this method is imported, to save time."""
    seed, threads = task.parameters.seed, task.parameters.threads
    if method == "gradient_boosting":
        import xgboost

        return lambda: xgboost.XGBClassifier(
            n_estimators=_TREES,
            max_depth=5,
            learning_rate=0.05,
            colsample_bytree=0.5,
            min_child_weight=_MIN_LEAF / 4,  # a sum of p (1 - p), about a quarter a row
            max_bin=64,
            n_jobs=threads,
            random_state=seed,
        )
    if method == "extra_trees":
        from sklearn.ensemble import ExtraTreesClassifier

        return lambda: ExtraTreesClassifier(_TREES, min_samples_leaf=_MIN_LEAF, n_jobs=threads, random_state=seed)
    try:
        from sklearnex.ensemble import RandomForestClassifier
    except ImportError:  # no build for this processor: scikit-learn's own is slower, with the same forest
        from sklearn.ensemble import RandomForestClassifier
    return lambda: RandomForestClassifier(_TREES, n_jobs=threads, random_state=seed)


def _fit(
    task: Task, make: Callable[[], Any], sides: _Sides, sample: _Sample, folds: NDArray[np.intp]
) -> list[tuple[Any, NDArray[np.float32]]]:
    """Fit a classifier for each fold on the rows of all others; return each with its feature importances."""
    labels = sides.is_later[sample.rows]
    # both tables have the same total weight: a similarity of one half then means "equally similar to both"
    weights = np.where(labels, 0.5 / labels.mean(), 0.5 / (~labels).mean())
    fitted = []
    with task.progress.step("fitting classifiers of training and later rows"):
        for fold in range(_FOLDS):
            others = folds[sample.rows] != fold
            classifier = make().fit(sample.features[others], labels[others], sample_weight=weights[others])
            fitted.append((classifier, np.asarray(classifier.feature_importances_)))
            task.progress.update((fold + 1) / _FOLDS, f"fold {fold + 1} of {_FOLDS}")
    return fitted


def _similarity(
    task: Task, sides: _Sides, classifiers: list[tuple[Any, NDArray[np.float32]]], folds: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Classify every row by the model that was not trained on it; shape (rows of both tables,)."""
    similarity = np.empty(len(sides), dtype=np.float32)
    with task.progress.step(f"classifying {len(sides):,} rows"):
        for positions, block in batches.iterate(sides.batches(), len(sides), report=task.progress.update):
            for fold, (classifier, _) in enumerate(classifiers):
                of_fold = folds[positions] == fold
                if of_fold.any():
                    similarity[positions[of_fold]] = classifier.predict_proba(block[of_fold])[:, 1]
    return similarity


def _default_unit(task: Task, known: NDArray[np.bool_]) -> str:
    """Return the default of SPLIT_BY, by the rows with a known target."""
    count = len(np.unique(task.training.era_numbers[known]))
    return "eras" if task.training.eras_are_weeks and count >= _MIN_ERAS else "rows"


def _split_by_eras(
    task: Task, similarity: NDArray[np.float32], known: NDArray[np.bool_], share: float
) -> tuple[Split, int]:
    """Take the consecutive eras with the highest mean similarity; return the split and its embargo in weeks."""
    numbers = task.training.era_numbers[known]
    eras_of_rows, sizes = np.unique(numbers, return_inverse=True, return_counts=True)[1:]
    if len(sizes) < 2:
        raise BadDataError(
            f"{task.training.path.name}: one era has known targets, and a split by eras needs two. Set SPLIT_BY=rows."
        )
    count = min(max(1, round(share * len(sizes))), len(sizes) - 1)
    window = np.ones(count)
    sums = np.convolve(np.bincount(eras_of_rows, similarity[known]), window, "valid")
    means = sums / np.convolve(sizes, window, "valid")
    held_out = eras.hold_out(
        numbers, int(np.argmax(means)), count, task.parameters.embargo if task.training.eras_are_weeks else 0
    )
    task.note(held_out.description)
    training, validation = (eras.within(known, rows) for rows in (held_out.training, held_out.held_out))
    return Split(similarity, validation, known & ~training & ~validation), held_out.embargo


def _most_similar(
    similarity: NDArray[np.float32], known: NDArray[np.bool_], share: float, seed: int
) -> NDArray[np.bool_]:
    """Mark the given share of the known rows, by the highest similarity; the seed determines the order of equal rows.

    At least one row is marked and one is not.
    """
    rows = np.flatnonzero(known)
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    shuffled = np.random.default_rng(seed).permutation(rows)
    order = shuffled[np.argsort(-similarity[shuffled], kind="stable")]
    marks = np.zeros(len(similarity), dtype=bool)
    marks[order[:count]] = True
    return marks


def _describe_auc(auc: float) -> str:
    if auc < 0.52:
        return "the tables hardly differ"
    if auc < 0.7:
        return "the tables differ a little"
    return "the tables differ much; run with FOLDS_BY=eras to check whether the classifiers only recognise eras"
