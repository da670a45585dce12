"""A support vector machine with a radial kernel, its margins turned into probabilities.

Parameters of its own:

``C`` (0.1)
    How much a row on the wrong side costs; on a signal this weak, little.
``ROW_LIMIT`` (20,000)
    The time of a fit grows with the square of its rows and nine in ten become support vectors. Above the limit it
    learns from a sample that keeps every era's and either class's share.

The margins are calibrated on eras the machine has not seen: the eras are cut into three stretches, a machine is fitted
on two of them and a sigmoid on the third, three times over, and the three probabilities are averaged. (SVC's own
``probability=True`` is slower, knows no eras and is about to leave scikit-learn.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.impute import SimpleImputer
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from numerai_contract import eras, targets
from numerai_contract.exits import BadDataError
from numerai_contract.task import Learned

try:
    from sklearnex.svm import SVC
except ImportError:  # no build for this processor: scikit-learn's own gives the same margins, only later
    from sklearn.svm import SVC

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.task import Task

_FOLDS = 3
# a block of rows against all support vectors: small enough to show progress, large enough to keep the cores busy
_ROWS_AT_A_TIME = 8_192


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    cost = task.parameters.number("C", 0.1, at_least=1e-6, at_most=1e6)
    row_limit = task.parameters.whole("ROW_LIMIT", 20_000, at_least=100, at_most=200_000)
    training, tournament = task.training, task.tournament

    rows, labels = targets.classes(training)
    era_numbers = training.era_numbers[rows]
    drawn = eras.sample(era_numbers, labels, row_limit, seed=task.parameters.seed)
    if not drawn.all():
        task.note(f"learning from {drawn.sum():,} of {len(drawn):,} rows, drawn evenly from all eras (ROW_LIMIT)")
        rows[rows] = drawn
        labels, era_numbers = labels[drawn], era_numbers[drawn]

    model = Pipeline(
        [
            ("impute", SimpleImputer(strategy="median", keep_empty_features=True)),
            ("scale", StandardScaler()),
            ("classify", _calibrated(_machine(cost, task.parameters.threads), _folds(training, labels, era_numbers))),
        ]
    )
    features = training.features(rows).astype(np.float32, copy=False)
    with task.progress.step(f"fitting the SVM on {len(labels):,} rows"):
        model.fit(features, labels)
    del features

    with task.progress.step(f"predicting {len(tournament):,} rows"):
        probabilities = _predict(task, model)
    support_vectors = [fold.estimator.n_support_.sum() for fold in model["classify"].calibrated_classifiers_]
    task.deliver(
        probabilities,
        Learned(
            training_rows=len(labels),
            chosen={"C": cost, "support_vectors": [int(count) for count in support_vectors]},
            libraries=("scikit-learn", "scikit-learn-intelex"),
        ),
    )


def _machine(cost: float, threads: int) -> Any:
    machine = SVC(C=cost, kernel="rbf", gamma="scale")
    # only Intel's runs on several cores; left alone it takes all of the machine's, whatever the container was given
    return machine.set_params(n_jobs=threads) if "n_jobs" in machine.get_params() else machine


def _calibrated(machine: Any, folds: NDArray[np.intp]) -> CalibratedClassifierCV:
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(_FOLDS)]
    return CalibratedClassifierCV(machine, method="sigmoid", cv=splits)


def _folds(training: Table, labels: NDArray[Any], era_numbers: NDArray[np.int32]) -> NDArray[np.intp]:
    """Assign each row to a fold so that either class is on both sides of every split; shape (rows,)."""
    rarest = min(np.bincount(labels, minlength=2).tolist())
    if rarest < _FOLDS:
        raise BadDataError(
            f"{training.path.name}: column 'target' is on one side of 0.5 in {rarest} rows only, of {len(labels):,}; "
            f"calibration needs {_FOLDS} of either class. Is the training set complete?"
        )
    folds = eras.folds(era_numbers, _FOLDS)
    if folds is not None and all(len(np.unique(labels[folds == fold])) == 2 for fold in range(_FOLDS)):
        return folds
    # too few eras, or classes too unevenly spread over them
    folds = np.empty(len(labels), dtype=np.intp)
    for fold, (_, held_out) in enumerate(StratifiedKFold(_FOLDS).split(labels, labels)):
        folds[held_out] = fold
    return folds


def _predict(task: Task, model: Pipeline) -> NDArray[np.float64]:
    """Compute the probabilities of the tournament rows, in their order; shape (rows,)."""
    probabilities = np.empty(len(task.tournament))
    for positions, block in task.tournament.batches():
        for start in range(0, len(positions), _ROWS_AT_A_TIME):
            part = slice(start, start + _ROWS_AT_A_TIME)
            probabilities[positions[part]] = model.predict_proba(block[part].astype(np.float32, copy=False))[:, 1]
            done = int(positions[part][-1]) + 1
            task.progress.update(done / len(probabilities), f"row {done:,} of {len(probabilities):,}")
    return probabilities
