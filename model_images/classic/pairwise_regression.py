"""Logistic regression on pairs of rows, which says which of the two is the positive one.

A pair is a row of either class, and the model gets the polynomial of degree 2 of the one (features and t-SNE's
coordinates), then that of the other; a row is scored by the mean probability that it is the positive one beside each of
many partners of the split's training part. No term mixes the two rows, so a pair (a, b) has the logit f(a) + g(b) + c.
Each pair counts in both orders, and swapping all of them changes nothing but the names: the only minimum has g = -f and
c = 0. So what is fitted is f alone, by the loss of f(a) - f(b), which is the same as scikit-learn's on both halves
side by side; and the mean over a thousand partners takes one f of each row instead of a thousand runs of the model.

It learns classes on the split's training part; a missing value counts as the feature's median there. As each pair has
one row of either class, its probabilities are those of a balanced target.

Parameters of its own:

``C`` (0.00001,0.00003,0.0001,0.0003,0.001,0.003,0.01)
    How much a pair's loss counts beside the weights, as in scikit-learn: one number, or several of which the split's
    validation part chooses, see `_cost_path`. The original's 0.01 is the last of them.
``ROUNDS`` (10)
    How many partners each row of the rarer class is paired with; the loss is the mean over the rounds, so that C means
    the same whatever their number.
``PARTNERS`` (1,000)
    How many training rows a row is compared with to be scored; the same for all rows.
``EMBEDDINGS`` (the five maps of the features, as in the original)
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

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
# rows that are compared with all partners at a time, so that the comparisons stay small beside any memory limit
_ROWS_AT_A_TIME = 2_048


def run(task: Task) -> None:
    """Fit on the split's training part and predict the tournament table."""
    costs = read_costs(task.parameters)
    rounds = task.parameters.whole("ROUNDS", 10, at_least=1, at_most=1_000)
    partners = task.parameters.whole("PARTNERS", 1_000, at_least=1, at_most=100_000)
    tables = SplitTables(
        task,
        targets.classes(task.training),
        embeddings=_EMBEDDINGS,
        row_limit=row_limit(len(task.training.feature_names) ** 2, MOST_WORK),
    )
    labels, columns = tables.training_labels, len(tables.feature_names)
    needed = memory(len(labels), columns) + _memory_of_pairs(labels, rounds)
    task.need_memory(needed, f"{len(labels):,} rows of {columns:,} columns in {rounds:,} rounds of pairs")

    random = np.random.default_rng(task.parameters.seed)
    with task.progress.step("reading the features and measuring their products"):
        matrix = tables.training_features()
        medians = Medians(matrix)
        terms = Terms(medians.fill(matrix), task.parameters.threads)
        validation = medians.fill(tables.validation_features())
    positive, negative = pairs(labels, rounds, random)
    compared = matrix[random.permutation(len(matrix))[:partners]]
    task.note(f"{len(positive):,} pairs; every row is scored beside {len(compared):,} partners")

    def probabilities_of(form: QuadraticForm, block: NDArray[np.float32]) -> NDArray[np.float64]:
        return mean_over_partners(form.of(block), form.of(compared))

    def judge(form: QuadraticForm) -> float:
        return tables.logloss(probabilities_of(form, validation))

    chosen = choose(
        task.progress,
        terms,
        costs,
        judge,
        loss=pairwise_loss(positive, negative, rounds),
        weight=len(positive) / rounds,
        intercept=False,
    )
    task.note(f"chose C = {chosen.cost:g} of {', '.join(f'{cost:g}' for cost in costs)}")
    probabilities = predict(task, tables, lambda block: probabilities_of(chosen.form, medians.fill(block)))
    task.deliver(
        probabilities,
        Learned(
            training_rows=len(labels),
            held_out_rows=len(validation),
            chosen={
                "C": chosen.cost,
                "path": chosen.path,
                "terms": terms.count,
                "pairs": len(positive),
                "partners": len(compared),
            },
            libraries=("scipy",),
            split=tables.score(probabilities_of(chosen.form, validation)),
        ),
    )


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
    """Make the loss of pairs, the mean over the rounds, from the rows of each; shape (pairs,)."""

    def loss(sums: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        margins = sums[positive] - sums[negative]
        slopes = expit(-margins) / rounds
        by_row = np.bincount(negative, slopes, len(sums)) - np.bincount(positive, slopes, len(sums))
        return float(np.logaddexp(0, -margins).sum()) / rounds, by_row

    return loss


def mean_over_partners(sums: NDArray[np.float64], of_partners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the mean probability that a row is the positive one beside each partner.

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


def _memory_of_pairs(labels: NDArray[np.int8], rounds: int) -> float:
    """Estimate what the pairs take beside the features, in MiB: two rows and what the loss computes of them."""
    rarer = min(np.count_nonzero(labels == 1), np.count_nonzero(labels == 0))
    return 56 * rarer * rounds / (1 << 20)
