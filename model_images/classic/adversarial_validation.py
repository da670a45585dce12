"""How like the tournament's rows is each training row? The most alike are kept aside to validate on.

A classifier learns to tell training rows from tournament rows. Where it fails the two are alike; a training row that it
takes for one of the tournament's says more of how a model will do there than a row drawn by chance. After Jim Fleming,
"Adversarial Validation" (2016), who had the idea from FastML.

The training and tournament rows are cut into five folds, each with its share of either; the rows of a fold are judged
by a classifier that has not seen them. What it says of a training row is the row's *likeness*, and the share
``VALIDATION_SHARE`` of the rows with the highest becomes the validation part of the split (``split.parquet``). Rows of
the same likeness are put in an order drawn by the seed.

Parameters of its own:

``METHOD`` (``gradient_boosting``)
    The classifier: ``gradient_boosting`` (XGBoost), ``extra_trees`` or ``random_forest``, 100 trees each. The forest is
    the one of 2016, grown to single rows: slow, and with no more than a hundred different answers, so that most of its
    order is drawn by the seed. benchmarks/fleming.py measures them side by side.
``VALIDATION_SHARE`` (0.1)
    The share of the training rows with a known target to validate on, from 0.01 to 0.5.
``FOLDS_BY`` (``rows``)
    ``eras`` keeps every era in one fold. Where rows of an era have something in common that those of others lack, folds
    of rows let the classifier recognise eras instead of what has changed between then and now: its AUC is then close
    to 1 and the likeness says little. Take ``eras`` when that happens; it needs five eras in the training table.
``ROW_LIMIT`` (200,000)
    The most rows of either table to learn from; above it, a sample that keeps every era's share. All are judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

from numerai_contract import eras, targets
from numerai_contract.exits import BadDataError
from numerai_contract.split import Split, write_split
from numerai_contract.task import Learned

from . import _likeness_report

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.task import Task

METHODS = ("gradient_boosting", "extra_trees", "random_forest")
_FOLDS = 5
_TREES = 100
_LEAST_LEAF = 20
_ROWS_AT_A_TIME = 65_536


def run(task: Task) -> None:
    """Judge every training row, and write the split."""
    parameters = task.parameters
    method = parameters.text("METHOD", METHODS[0], choices=METHODS)
    share = parameters.number("VALIDATION_SHARE", 0.1, at_least=0.01, at_most=0.5)
    folds_by = parameters.text("FOLDS_BY", "rows", choices=("rows", "eras"))
    limit = parameters.whole("ROW_LIMIT", 200_000, at_least=100, at_most=10_000_000)
    # before the work: a table without a target to validate on, or with one class, is of no use to anyone later
    known = targets.values(task.training).rows

    sides = _Sides(task.training, task.tournament)
    folds = _folds(sides, folds_by, parameters.seed)
    sample = _sample(task, sides, limit)
    classifiers = _learn(task, _classifier(method, task), sides, sample, folds)
    likeness = _judge(task, sides, classifiers, folds)

    is_tournament = sides.is_tournament
    aucs = [float(roc_auc_score(is_tournament[folds == fold], likeness[folds == fold])) for fold in range(_FOLDS)]
    of_training = likeness[: len(task.training)]
    split = Split(of_training, _most_alike(of_training, known, share, parameters.seed))
    auc = float(np.mean(aucs))
    task.note(f"AUC {auc:.4f} (folds {', '.join(f'{each:.4f}' for each in aucs)}): {_in_words(auc)}")
    least = float(np.min(of_training[split.validation]))
    task.note(
        f"{split.validation.sum():,} of {known.sum():,} training rows with a known target are kept to validate on; the "
        f"least alike of them has a likeness of {least:.4f}"
    )
    curve = _likeness_report.roc(is_tournament, likeness)
    drift = _likeness_report.drifting_features(task, [importances for _, importances in classifiers])
    _likeness_report.plot_roc(parameters.storing / "plots" / "adversarial_validation.png", curve, auc)
    path = write_split(parameters.storing, task.training.ids, split, parameters.inputs)
    task.conclude(
        Learned(
            training_rows=int(len(task.training) - split.validation.sum()),
            held_out_rows=int(split.validation.sum()),
            chosen={
                "method": method,
                "folds_by": folds_by,
                "validation_share": share,
                "auc": auc,
                "auc_of_folds": aucs,
                "least_likeness_to_validate_on": least,
                "roc": curve._asdict(),
                "drifting_features": drift,
            },
            libraries=("scikit-learn", "scikit-learn-intelex", "xgboost-cpu"),
        ),
        f"a split of {len(task.training):,} rows in {path}",
    )


def check_self_test(storing: Path) -> None:
    """Look at what the self-test's run left.

    Raises
    ------
    BadDataError
        When the split is not what it should be.
    """
    from numerai_contract.split import read_split
    from numerai_contract.tables import Table

    training = Table(storing / "training.parquet")
    split = read_split(storing, training)
    if split.validation.sum() != round(0.1 * len(training)):
        raise BadDataError(f"{split.validation.sum()} rows to validate on, of {len(training)}")


class _Sides:
    """The two tables as one, the training table's rows first."""

    def __init__(self, training: Table, tournament: Table) -> None:
        self.training, self.tournament = training, tournament
        self.is_tournament = np.arange(len(training) + len(tournament)) >= len(training)
        # an era of one table is none of the other's, whatever its number
        self.eras = np.concatenate([training.era_numbers, tournament.era_numbers + 1_000_000_000])

    def __len__(self) -> int:
        return len(self.is_tournament)

    def batches(self, rows: NDArray[np.bool_] | None = None) -> Iterator[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """Read features a batch at a time, as `Table.batches` does; NaN where a value is missing."""
        first = 0
        for table in (self.training, self.tournament):
            wanted = None if rows is None else rows[first : first + len(table)]
            for positions, block in table.batches(wanted):
                yield positions + first, block.astype(np.float32, copy=False)
            first += len(table)


def _folds(sides: _Sides, folds_by: str, seed: int) -> NDArray[np.intp]:
    """Assign each row of both tables to a fold with both sides in it; shape (rows,)."""
    smaller = min(sides.is_tournament.sum(), (~sides.is_tournament).sum())
    if smaller < _FOLDS:
        table = sides.training if len(sides.training) <= len(sides.tournament) else sides.tournament
        raise BadDataError(
            f"{table.path.name}: {smaller} rows are too few; {_FOLDS} folds need one each. Is it complete?"
        )
    folds = np.empty(len(sides), dtype=np.intp)
    nothing = np.zeros((len(sides), 0))
    if folds_by == "eras":
        split = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed).split(
            nothing, sides.is_tournament, sides.eras
        )
    else:
        split = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed).split(nothing, sides.is_tournament)
    for fold, (_, judged) in enumerate(split):
        folds[judged] = fold
        if len(np.unique(sides.is_tournament[judged])) < 2:
            of_training = len(np.unique(sides.eras[~sides.is_tournament]))
            of_tournament = len(np.unique(sides.eras[sides.is_tournament]))
            raise BadDataError(
                f"{of_training} eras of {sides.training.path.name} and {of_tournament} of {sides.tournament.path.name} "
                f"do not give {_FOLDS} folds with both in each. Take FOLDS_BY=rows."
            )
    return folds


class _Sample(NamedTuple):
    rows: NDArray[np.intp]  # positions among the rows of both tables, ascending
    features: NDArray[np.float32]  # of these rows


def _sample(task: Task, sides: _Sides, limit: int) -> _Sample:
    """Read the rows to learn from."""
    marks = np.concatenate(
        [
            eras.sample(table.era_numbers, np.zeros(len(table), dtype=np.int8), limit, seed=task.parameters.seed)
            for table in (sides.training, sides.tournament)
        ]
    )
    rows = np.flatnonzero(marks)
    if len(rows) < len(sides):
        task.note(f"learning from {len(rows):,} of {len(sides):,} rows, drawn evenly from all eras (ROW_LIMIT)")
    columns = len(task.training.feature_names)
    # the sample, what a fold learns from, and the classifier's own copy of it
    task.need_memory(400 + 3 * len(rows) * columns * 4 / 2**20, f"{len(rows):,} rows of {columns:,} features")
    features = np.empty((len(rows), columns), dtype=np.float32)
    with task.progress.step(f"reading {len(rows):,} rows"):
        filled = 0
        for positions, block in sides.batches(marks):
            features[filled : filled + len(positions)] = block
            filled += len(positions)
    return _Sample(rows, features)


def _classifier(method: str, task: Task) -> Callable[[], Any]:
    """Find what makes a classifier of the method; its library is imported here, as the others would only cost time."""
    seed, threads = task.parameters.seed, task.parameters.threads
    if method == "gradient_boosting":
        import xgboost

        return lambda: xgboost.XGBClassifier(
            n_estimators=_TREES,
            max_depth=5,
            learning_rate=0.05,
            colsample_bytree=0.5,
            min_child_weight=_LEAST_LEAF / 4,  # of p (1 - p), which is about a quarter a row
            max_bin=64,
            n_jobs=threads,
            random_state=seed,
        )
    if method == "extra_trees":
        from sklearn.ensemble import ExtraTreesClassifier

        return lambda: ExtraTreesClassifier(_TREES, min_samples_leaf=_LEAST_LEAF, n_jobs=threads, random_state=seed)
    try:
        from sklearnex.ensemble import RandomForestClassifier
    except ImportError:  # no build for this processor: scikit-learn's own gives the same forest, only later
        from sklearn.ensemble import RandomForestClassifier
    return lambda: RandomForestClassifier(_TREES, n_jobs=threads, random_state=seed)


def _learn(
    task: Task, make: Callable[[], Any], sides: _Sides, sample: _Sample, folds: NDArray[np.intp]
) -> list[tuple[Any, NDArray[np.float32]]]:
    """Fit a classifier for each fold on the rows of all others; return each with its features' importances."""
    labels = sides.is_tournament[sample.rows]
    # either side weighs the same, whatever its rows: a likeness of one half then says "as like one as the other"
    weights = np.where(labels, 0.5 / labels.mean(), 0.5 / (~labels).mean())
    fitted = []
    with task.progress.step("learning to tell training rows from tournament rows"):
        for fold in range(_FOLDS):
            others = folds[sample.rows] != fold
            classifier = make().fit(sample.features[others], labels[others], sample_weight=weights[others])
            fitted.append((classifier, np.asarray(classifier.feature_importances_)))
            task.progress.update((fold + 1) / _FOLDS, f"fold {fold + 1} of {_FOLDS}")
    return fitted


def _judge(
    task: Task, sides: _Sides, classifiers: list[tuple[Any, NDArray[np.float32]]], folds: NDArray[np.intp]
) -> NDArray[np.float32]:
    """Let every row be judged by the classifier that has not seen it; shape (rows of both tables,)."""
    likeness = np.empty(len(sides), dtype=np.float32)
    with task.progress.step(f"judging {len(sides):,} rows"):
        for positions, block in sides.batches():
            for fold, (classifier, _) in enumerate(classifiers):
                of_fold = folds[positions] == fold
                if of_fold.any():
                    likeness[positions[of_fold]] = classifier.predict_proba(block[of_fold])[:, 1]
            done = int(positions[-1]) + 1
            task.progress.update(done / len(sides), f"row {done:,} of {len(sides):,}")
    return likeness


def _most_alike(likeness: NDArray[np.float32], known: NDArray[np.bool_], share: float, seed: int) -> NDArray[np.bool_]:
    """Mark the given share of the known rows, those of the highest likeness; among equals the seed decides.

    At least one row is marked and one is not.
    """
    rows = np.flatnonzero(known)
    count = min(max(1, round(share * len(rows))), len(rows) - 1)
    shuffled = np.random.default_rng(seed).permutation(rows)
    order = shuffled[np.argsort(-likeness[shuffled], kind="stable")]
    marks = np.zeros(len(likeness), dtype=bool)
    marks[order[:count]] = True
    return marks


def _in_words(auc: float) -> str:
    if auc < 0.52:
        return "the two are as good as alike"
    if auc < 0.7:
        return "the two differ a little"
    return "the two differ much; where rows of an era have something in common, FOLDS_BY=eras tells whether it is that"
