"""Logistic regression on pairs of rows, trained to predict which of the two is positive.

A pair has a row of each class, and the features of the model are the polynomials of degree 2 of both rows (features and
t-SNE's coordinates). The score of a row is the mean probability that it is the positive one, over many partners from
the split's training part. No term mixes the two rows, so a pair (a, b) has the logit f(a) + g(b) + c. Each pair counts
in both orders, and swapping all of them changes only the names: the only minimum has g = -f and c = 0. So only f is
fitted, by the loss of f(a) - f(b), which is the same as scikit-learn's with both polynomials side by side; and the mean
over a thousand partners needs one f of each row instead of a thousand runs of the model.

It learns classes on the split's training part; a missing value becomes the median of the feature there. As each pair
has one row of each class, its probabilities are those of a balanced target. The final fit learns from all rows, with
the penalty that the first has selected; the saved model has f of the partners, not their rows.

Environment variables:

``C`` (penalties from 30 to 0.001 of the mean loss, extended while an end is the best)
    The weight of the loss relative to the penalty, as in scikit-learn: one number, or several, separated by commas. The
    split's validation part selects, see `_regularization_path`. The original's was 0.01.
``ROUNDS`` (10)
    Number of partners of each row of the rarer class; the loss is the mean over the rounds, so that C does not depend
    on their number.
``PARTNERS`` (1,000)
    Number of training rows that every row is compared with for its score.
``EMBEDDINGS`` (the five embeddings of the features, as in the original)
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

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
# rows compared with all partners at a time, so that the comparisons stay small beside any memory limit
_ROWS_AT_A_TIME = 2_048


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and features of a fit."""
    # of each pair two rows, its margin and its slope, and their copies; at most half of the rows are of the rarer class
    return quadratic_plan(parameters, sizes, _EMBEDDINGS, row_bytes=28 * _read_rounds(parameters))


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the split's training part and select C; the final fit has the C of the first."""
    penalties = read_penalties(task.parameters)
    rounds = _read_rounds(task.parameters)
    partners = task.parameters.get_int("PARTNERS", 1_000, at_least=1, at_most=100_000)
    plan_of_fit = plan(task.parameters, task.sizes)
    tables = SplitTables(task, targets.classes(task.training), embeddings=_EMBEDDINGS, plan=plan_of_fit)
    labels = tables.training_labels

    random = np.random.default_rng(task.parameters.seed)
    data = FittingData.read(task, tables)
    positive, negative = pairs(labels, rounds, random)
    compared = data.matrix[random.permutation(len(data.matrix))[:partners]]
    task.note(f"{len(positive):,} pairs; every row is compared with {len(compared):,} partners")

    def evaluate(form: QuadraticForm) -> float:
        return tables.logloss(mean_over_partners(form.compute(data.validation), form.compute(compared)))

    fitting: dict[str, Any] = {
        "loss": pairwise_loss(positive, negative, rounds),
        "weight": len(positive) / rounds,
        "intercept": False,
    }
    if earlier is None:
        best = fit_path(task, data.terms, penalties, evaluate, **fitting)
    else:
        best = fit_penalty(task, data.terms, earlier.choice, **fitting)
    of_partners = best.form.compute(compared)
    model = QuadraticModel(tables.source, data.medians, best.form, mean_over_partners, of_partners=of_partners)
    summary = TrainingSummary(
        training_rows=len(labels),
        held_out_rows=len(data.validation),
        chosen={
            "C": best.cost,
            "penalty": best.penalty,
            "path": best.path,
            "terms": data.terms.count,
            "pairs": len(positive),
            "partners": len(compared),
        },
        libraries=("scipy",),
        split=tables.score(model.predict_imputed(data.validation)),
    )
    return Fitted(model, summary, best.penalty)


def load(task: Task, directory: Path) -> QuadraticModel:
    """Load a saved model."""
    return QuadraticModel.load(task, directory, mean_over_partners)


def pairs(
    labels: NDArray[np.int8], rounds: int, random: np.random.Generator
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Draw pairs of rows of opposite class: in each round every row of the rarer class once.

    Returns
    -------
    positive, negative : numpy.ndarray of int, shape (pairs,)
        The rows of each pair.
    """
    classes = [np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)]
    rarer = min(len(rows) for rows in classes)
    positive, negative = (np.concatenate([random.permutation(rows)[:rarer] for _ in range(rounds)]) for rows in classes)
    return positive, negative


def pairwise_loss(positive: NDArray[np.intp], negative: NDArray[np.intp], rounds: int) -> Loss:
    """Create the loss of pairs, the mean over the rounds, from the rows of each pair; shape (pairs,)."""

    def loss(sums: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = sums[positive] - sums[negative]
        slopes = expit(-margins) / rounds
        by_row = np.bincount(negative, slopes, len(sums)) - np.bincount(positive, slopes, len(sums))
        return float(np.logaddexp(0, -margins).sum()) / rounds, by_row

    return loss


def mean_over_partners(sums: NDArray[np.float64], of_partners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mean probability over all partners that a row is the positive one of the pair.

    Parameters
    ----------
    sums, of_partners
        f of the rows and of the partners, shape (rows,) and (partners,).

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
    """
    means = np.empty(len(sums))
    for start in range(0, len(sums), _ROWS_AT_A_TIME):
        rows = slice(start, start + _ROWS_AT_A_TIME)
        means[rows] = expit(sums[rows, np.newaxis] - of_partners).mean(axis=1)
    return means


def _read_rounds(parameters: Parameters) -> int:
    return parameters.get_int("ROUNDS", 10, at_least=1, at_most=1_000)
