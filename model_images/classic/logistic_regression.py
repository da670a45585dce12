"""Logistic regression with an L2 penalty on the polynomial of degree 2 of the features and t-SNE's coordinates.

The same model as scikit-learn's ``Pipeline(PolynomialFeatures(2), StandardScaler, LogisticRegression)``, without the
table of terms: see `_quadratic`. It learns classes on the split's training part; a missing value counts as the
feature's median there.

Parameters of its own:

``C`` (0.00001,0.00003,0.0001,0.0003,0.001,0.003,0.01)
    How much a row's loss counts beside the weights, as in scikit-learn: one number, or several of which the split's
    validation part chooses, see `_cost_path`. The original's 0.01 is the last of them. On 20,000 and 60,000 rows with
    a known weak signal 0.0001 was chosen, on a stronger one 0.0003 and 0.001.
``EMBEDDINGS`` (the five maps of the features' products, as in the original)
    See `numerai_contract.split_tables`.
``ROW_LIMIT`` (1,200,000 with 50 features; the fourth of it with twice as many, and so on, but 20,000 at least)
    Likewise. The time of a fit grows with the rows and with the square of the features.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.special import expit

from numerai_contract import targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.self_test import lay_preparations
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Learned

from ._cost_path import choose, read_costs
from ._quadratic import MOST_WORK, Terms, memory
from ._split_learning import Medians, predict, row_limit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._quadratic import Loss, QuadraticForm

prepare_self_test = lay_preparations

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if embedding.polynomial)


def run(task: Task) -> None:
    """Fit on the split's training part and predict the tournament table."""
    costs = read_costs(task.parameters)
    tables = SplitTables(
        task,
        targets.classes(task.training),
        embeddings=_EMBEDDINGS,
        row_limit=row_limit(len(task.training.feature_names) ** 2, MOST_WORK),
    )
    labels, columns = tables.training_labels, len(tables.feature_names)
    task.need_memory(memory(len(labels), columns), f"{len(labels):,} rows of {columns:,} features and coordinates")

    with task.progress.step("reading the features and measuring their products"):
        matrix = tables.training_features()
        medians = Medians(matrix)
        terms = Terms(medians.fill(matrix), task.parameters.threads)
        validation = medians.fill(tables.validation_features())

    def judge(form: QuadraticForm) -> float:
        return tables.logloss(expit(form.of(validation)))

    chosen = choose(task.progress, terms, costs, judge, loss=logistic_loss(labels), weight=len(labels))
    task.note(f"chose C = {chosen.cost:g} of {', '.join(f'{cost:g}' for cost in costs)}")
    probabilities = predict(task, tables, lambda block: expit(chosen.form.of(medians.fill(block))))
    task.deliver(
        probabilities,
        Learned(
            training_rows=len(labels),
            held_out_rows=len(validation),
            chosen={"C": chosen.cost, "path": chosen.path, "terms": terms.count},
            libraries=("scipy",),
            split=tables.score(expit(chosen.form.of(validation))),
        ),
    )


def logistic_loss(labels: NDArray[np.int8]) -> Loss:
    """Make the loss of logistic regression from classes 0 and 1, shape (rows,)."""
    signs = 2.0 * labels - 1

    def loss(sums: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = signs * sums
        return float(np.logaddexp(0, -margins).sum()), -signs * expit(-margins)

    return loss
