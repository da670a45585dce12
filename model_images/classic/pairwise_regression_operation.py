"""Logistic regression on pairs of rows, trained to predict which of the two has the higher target value.

The features of the model are the polynomials of degree 2 of both rows (features and t-SNE's coordinates). No term mixes
the two rows, so a pair (a, b) has the logit f(a) + g(b) + c. Each pair counts in both orders, and swapping all of them
changes only the names: the only minimum has g = -f and c = 0. So only f is fitted, by the loss of f(a) - f(b), which is
the same as scikit-learn's with both polynomials side by side. The original drew a thousand partners for each row; here
the loss is that of all pairs with different values, see `_pair_loss`. A pair counts by the difference of its values: of
targets of 0 and 1, all pairs count the same.

The score of a row is the mean probability that it is the higher one, over all rows of the split's training part. It is
a function of f alone, which the saved model has as a table.

A missing value becomes the median of the feature in the split's training part. The final fit learns from all rows, with
the penalty that the first has selected.

Environment variables:

``C`` (penalties from 30 to 0.001 of the mean loss, extended while an end is the best)
    The weight of the loss relative to the penalty, as in scikit-learn with one pair for each row: one number, or
    several, separated by commas. The loss of the pairs of the split's validation part selects, see
    `_regularization_path`. The original's was 0.01.
``EMBEDDINGS`` (the five embeddings of the features, as in the original)
    See `numerai_contract.split_tables`.
``ROW_LIMIT`` (4,000,000 with 50 features; a quarter with twice as many, and so on)
    See `numerai_contract.split_tables`. The time of a fit grows with the rows and with the square of the features: of a
    table that would exceed it, features are left out first, down to the 100 with the largest correlation with the
    target, see `_split_plan`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import expit

from numerai_contract import targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.fitting import Fitted
from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import TrainingSummary

from ._pair_loss import PairLoss
from ._quadratic_model import QuadraticModel
from ._regularization_path import FittingData, fit_path, fit_penalty, read_penalties
from ._split_plan import quadratic_plan

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.task import Task

    from ._quadratic import QuadraticForm

prepare_self_test = write_fixture_inputs

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
# rows that stand for all in a score, evenly from the lowest to the highest; points of its table
_MAX_PARTNERS, _POINTS = 10_000, 3_001
# order of the rows, positions, derivatives
_BYTES_OF_A_ROW = 32


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and features of a fit."""
    return quadratic_plan(parameters, sizes, _EMBEDDINGS, row_bytes=_BYTES_OF_A_ROW)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the split's training part and select C; the final fit has the C of the first."""
    penalties = read_penalties(task.parameters)
    plan_of_fit = plan(task.parameters, task.sizes)
    tables = SplitTables(task, targets.values(task.training), embeddings=_EMBEDDINGS, plan=plan_of_fit)
    labels = tables.training_labels

    data = FittingData.read(task, tables)
    loss, rows = PairLoss(labels), len(labels)
    task.note(f"{loss.pairs:,} pairs of rows with different values")

    if earlier is None:
        held_out, held_out_rows = PairLoss(tables.validation_labels), len(data.validation)

        def evaluate(form: QuadraticForm) -> float:
            return held_out(form.compute(data.validation))[0] / held_out_rows

        best = fit_path(task, data.terms, penalties, evaluate, loss=loss, weight=rows, intercept=False)
    else:
        best = fit_penalty(task, data.terms, earlier.choice, loss=loss, weight=rows, intercept=False)
    sums, scores = score_table(best.form.compute(data.matrix))
    model = QuadraticModel(tables.source, data.medians, best.form, mean_probability, sums_of_table=sums, scores=scores)
    summary = TrainingSummary(
        training_rows=rows,
        held_out_rows=len(data.validation),
        chosen={
            "C": best.cost,
            "penalty": best.penalty,
            "path": best.path,
            "terms": data.terms.count,
            "pairs": loss.pairs,
        },
        libraries=("scipy",),
        split=tables.score(model.predict_imputed(data.validation)),
    )
    return Fitted(model, summary, best.penalty)


def load(task: Task, directory: Path) -> QuadraticModel:
    """Load a saved model."""
    return QuadraticModel.load(task, directory, mean_probability)


def score_table(sums: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tabulate the mean probability over rows that a further row is the higher one of the pair.

    Parameters
    ----------
    sums
        f of the rows, shape (rows,).

    Returns
    -------
    sums_of_table, scores : numpy.ndarray of float64, shape (points,)
        f of the further row, from one range of `sums` below all of them to one above, and its mean probability.
    """
    count = min(len(sums), _MAX_PARTNERS)
    # the rows themselves, where there are no more
    partners = np.quantile(sums, (np.arange(count) + 0.5) / count, method="hazen")
    spread = float(np.ptp(sums)) or 1.0
    points = np.linspace(np.min(sums) - spread, np.max(sums) + spread, _POINTS)
    return points, np.array([expit(point - partners).mean() for point in points])


def mean_probability(
    sums: NDArray[np.float64], sums_of_table: NDArray[np.float64], scores: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Look up the score of rows, in (0, 1), by f of the rows; both shapes (rows,).

    Beyond the table a score is that of its end.
    """
    found: NDArray[np.float64] = PchipInterpolator(sums_of_table, scores)(
        sums.clip(sums_of_table[0], sums_of_table[-1])
    )
    return found
