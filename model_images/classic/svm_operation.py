"""A support vector machine with a radial kernel and calibrated probabilities.

Environment variables:

``C`` (0.1)
    The cost of a row on the wrong side of the margin; small, for a weak signal.
``ROW_LIMIT`` (20,000)
    The time of a fit grows with the square of its rows, and nine in ten become support vectors. Above the limit it
    learns from a sample that keeps the share of every era and class.

The margins are calibrated on eras that are not in the fit: the eras are divided into three folds of consecutive eras, a
machine is fitted on two of them and a sigmoid on the third, for each fold, and the three probabilities are averaged.
(SVC's ``probability=True`` is slower, ignores eras and is deprecated in scikit-learn.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.calibration import CalibratedClassifierCV
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from numerai_contract import eras, saved_state, targets
from numerai_contract.exits import BadDataError
from numerai_contract.fitting import Fitted
from numerai_contract.imputation import Medians
from numerai_contract.task import TrainingSummary

try:
    from sklearnex.svm import SVC
except ImportError:  # no build for this processor: scikit-learn's own is slower, with the same margins
    from sklearn.svm import SVC

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

_FOLDS = 3
# rows compared with all support vectors at a time: few enough to show progress, enough to keep the cores busy
_ROWS_AT_A_TIME = 8_192


class SvmModel(NamedTuple):
    """Medians of the training rows, and scaling and calibrated machines in one pipeline of scikit-learn."""

    medians: Medians
    pipeline: Pipeline

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""

        def predict_block(block: NDArray[Any]) -> NDArray[np.float64]:
            imputed = self.medians.fill(block.astype(np.float32))
            probabilities: NDArray[np.float64] = self.pipeline.predict_proba(imputed)[:, 1]
            return probabilities

        return task.predict_rows(table, table.batches(), predict_block, _ROWS_AT_A_TIME)

    def save(self, directory: Path) -> None:
        """Save it as estimators of scikit-learn."""
        saved_state.save_estimator(directory, self)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:  # noqa: ARG001 - nothing is selected
    """Fit on the training table."""
    cost = task.parameters.get_float("C", 0.1, at_least=1e-6, at_most=1e6)
    row_limit = task.parameters.get_int("ROW_LIMIT", 20_000, at_least=100, at_most=200_000)
    training = task.training
    rows, labels = task.sample_rows(targets.classes(training), row_limit)
    folds = _folds(training, labels, training.era_numbers[rows])
    classifier = _calibrated(_svc(cost, task.parameters.threads), folds)
    pipeline = Pipeline([("scale", StandardScaler()), ("classify", classifier)])
    features = training.features(rows).astype(np.float32, copy=False)
    with task.progress.step(f"fitting the SVM on {len(labels):,} rows"):
        medians = Medians(features)
        pipeline.fit(medians.fill(features), labels)
    support_vectors = [fold.estimator.n_support_.sum() for fold in pipeline["classify"].calibrated_classifiers_]
    summary = TrainingSummary(
        training_rows=len(labels),
        chosen={"C": cost, "support_vectors": [int(count) for count in support_vectors]},
        libraries=("scikit-learn", "scikit-learn-intelex"),
    )
    return Fitted(SvmModel(medians, pipeline), summary)


def load(task: Task, directory: Path) -> SvmModel:  # noqa: ARG001 - every operation has this signature
    """Load a saved model."""
    model: SvmModel = saved_state.load_estimator(directory)
    return model


def _svc(cost: float, threads: int) -> Any:
    svc = SVC(C=cost, kernel="rbf", gamma="scale")
    # only Intel's runs on several cores; by default it uses all cores of the host, beyond the container's limit
    return svc.set_params(n_jobs=threads) if "n_jobs" in svc.get_params() else svc


def _calibrated(svc: Any, folds: NDArray[np.intp]) -> CalibratedClassifierCV:
    splits = [(np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)) for fold in range(_FOLDS)]
    return CalibratedClassifierCV(svc, method="sigmoid", cv=splits)


def _folds(training: TableView, labels: NDArray[Any], era_numbers: NDArray[np.int32]) -> NDArray[np.intp]:
    """Assign each row to a fold so that both parts of every split have both classes; shape (rows,)."""
    rarest = min(np.bincount(labels, minlength=2).tolist())
    if rarest < _FOLDS:
        raise BadDataError(
            f"{training.path.name}: column 'target' has only {rarest} rows on one side of 0.5, of {len(labels):,}; "
            f"calibration needs {_FOLDS} of each class. Is the training set complete?"
        )
    folds = eras.assign_folds(era_numbers, _FOLDS)
    if folds is not None and all(len(np.unique(labels[folds == fold])) == 2 for fold in range(_FOLDS)):
        return folds
    # too few eras, or classes distributed too unevenly among them
    folds = np.empty(len(labels), dtype=np.intp)
    for fold, (_, held_out) in enumerate(StratifiedKFold(_FOLDS).split(labels, labels)):
        folds[held_out] = fold
    return folds
