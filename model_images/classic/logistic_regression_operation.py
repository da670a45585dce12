"""Logistic regression with an L2 penalty on the polynomial of degree 2 of the features and t-SNE's coordinates.

The same model as scikit-learn's ``Pipeline(PolynomialFeatures(2), StandardScaler, LogisticRegression)``, without the
table of terms: see `_quadratic`. It learns the target's value as a probability on the split's training part; a missing
value becomes the median of the feature there. The final fit learns from all rows, with the selected penalty.

Environment variables:

``C`` (penalties from 30 to 0.001 of the mean loss, extended while an end is the best)
    The weight of the loss relative to the penalty, as in scikit-learn: one number, or several, separated by commas. The
    split's validation part selects, see `_regularization_path`. The original's was 0.01.
``EMBEDDINGS`` (the five embeddings of the features' products, as in the original)
    See `numerai_contract.split_tables`.
``ROW_LIMIT`` (4,000,000 with 50 features; a quarter with twice as many, and so on)
    See `numerai_contract.split_tables`. The time of a fit grows with the rows and with the square of the features: of a
    table that would exceed it, features are left out first, down to the 100 with the largest correlation with the
    target, see `_split_plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.special import expit

from numerai_contract import targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.fitting import Fitted
from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import TrainingSummary

from ._quadratic_model import QuadraticModel
from ._regularization_path import FittingData, fit_path, fit_penalty, read_penalties
from ._split_plan import quadratic_plan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.task import Task

    from ._quadratic import Loss, QuadraticForm

prepare_self_test = write_fixture_inputs

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if embedding.polynomial)


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and features of a fit."""
    return quadratic_plan(parameters, sizes, _EMBEDDINGS)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the split's training part and select C; the final fit has the C of the first."""
    penalties = read_penalties(task.parameters)
    plan_of_fit = plan(task.parameters, task.sizes)
    tables = SplitTables(task, targets.values(task.training), embeddings=_EMBEDDINGS, plan=plan_of_fit)
    labels = tables.training_labels

    data = FittingData.read(task, tables)

    def evaluate(form: QuadraticForm) -> float:
        return mean_loss(form.compute(data.validation), tables.validation_labels)

    fitting: dict[str, Any] = {"loss": logistic_loss(labels), "weight": len(labels)}
    if earlier is None:
        best = fit_path(task, data.terms, penalties, evaluate, **fitting)
    else:
        best = fit_penalty(task, data.terms, earlier.choice, **fitting)
    model = QuadraticModel(tables.source, data.medians, best.form, expit)
    summary = TrainingSummary(
        training_rows=len(labels),
        held_out_rows=len(data.validation),
        chosen={"C": best.cost, "penalty": best.penalty, "path": best.path, "terms": data.terms.count},
        libraries=("scipy",),
        split=tables.score(model.predict_imputed(data.validation)),
    )
    return Fitted(model, summary, best.penalty)


def load(task: Task, directory: Path) -> QuadraticModel:
    """Load a saved model."""
    return QuadraticModel.load(task, directory, expit)


def logistic_loss(labels: NDArray[np.float32]) -> Loss:
    """Create the loss of logistic regression for values in [0, 1], shape (rows,)."""
    values = labels.astype(np.float64)

    def loss(sums: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        return float(np.logaddexp(0, sums).sum() - values @ sums), expit(sums) - values

    return loss


def mean_loss(sums: NDArray[np.float64], labels: NDArray[np.float32]) -> float:
    """Compute the mean loss of rows, in nats: the logloss where all values are 0 or 1; NaN without rows."""
    return logistic_loss(labels)(sums)[0] / len(labels) if len(labels) else float("nan")
