"""A factorization machine of second order, by myfm.

Every product of two features counts, and its weight is the product of two short vectors, one of each feature.

The vectors are learned by variational inference, which finds out for itself how much to penalise them, with a probit
link. It learns classes on the split's training part; after each iteration the validation part is predicted, and the
iteration that did best is kept.

Features and t-SNE's coordinates are standardised, and that is all. The original gave it their polynomial of degree 2;
measured on 20,000 rows with a known weak signal (a coin's logloss is .6931), that did worse (.6936 against .6887) and
took 33 times as long: a factorization machine makes products of two by itself, and products of four drown the signal.

Parameters of its own:

``RANK`` (8)
    Length of the vectors.
``MAX_ITERATIONS`` (100), ``EARLY_STOPPING`` (20)
    How many iterations at most, and how many without gain end it. On a weak signal the best is among the first few.
``INITIAL_DEVIATION`` (0.01)
    Standard deviation of what the vectors begin with: myfm's own 0.1 begins with more noise than there is signal
    (.6901 in place of .6887 on the same data).
``EMBEDDINGS`` (the five maps of the features), ``ROW_LIMIT`` (30 million values in all: 600,000 with 50 features)
    See `numerai_contract.split_tables`. With so many features that it would be less, the limit is 20,000 rows.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import ndtr
from sklearn.preprocessing import StandardScaler

from numerai_contract import targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.self_test import lay_preparations
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Learned

from ._quadratic import QuadraticForm
from ._split_learning import Medians, predict, row_limit

if TYPE_CHECKING:
    from collections.abc import Callable

    from myfm import VariationalFMClassifier
    from numpy.typing import NDArray

    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

prepare_self_test = lay_preparations

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
_MOST_VALUES = 30_000_000
# myfm takes a signed number of 32 bits
_SEEDS = 2**31


def run(task: Task) -> None:
    """Fit on the split's training part and predict the tournament table."""
    rank = task.parameters.whole("RANK", 8, at_least=1, at_most=256)
    iterations = task.parameters.whole("MAX_ITERATIONS", 100, at_least=1, at_most=10_000)
    patience = task.parameters.whole("EARLY_STOPPING", 20, at_least=1, at_most=10_000)
    deviation = task.parameters.number("INITIAL_DEVIATION", 0.01, at_least=1e-6, at_most=1)
    tables = SplitTables(
        task,
        targets.classes(task.training),
        embeddings=_EMBEDDINGS,
        row_limit=row_limit(len(task.training.feature_names), _MOST_VALUES),
    )
    rows, columns = len(tables.training_labels), len(tables.feature_names)
    task.need_memory(_memory(rows, columns), f"{rows:,} rows of {columns:,} features and coordinates")

    with task.progress.step("reading the features"):
        matrix = tables.training_features()
        medians = Medians(matrix)
        scaler = StandardScaler(copy=False)
        learning = _dense_rows(scaler.fit_transform(medians.fill(matrix)))
        del matrix
        validation = scaler.transform(medians.fill(tables.validation_features()))

    def judge(form: QuadraticForm) -> float:
        return tables.logloss(ndtr(form.of(validation)))

    best = BestIteration(judge, iterations, patience, task.progress)
    machine = _machine(rank, deviation, task.parameters.seed)
    with task.progress.step(f"fitting vectors of {rank} on {rows:,} rows"):
        machine.fit(learning, tables.training_labels, n_iter=iterations, callback=best)
    del learning
    task.note(f"best validation logloss {best.logloss:.5f} at iteration {best.iteration:,}")
    probabilities = predict(task, tables, lambda block: ndtr(best.form.of(scaler.transform(medians.fill(block)))))
    task.deliver(
        probabilities,
        Learned(
            training_rows=rows,
            held_out_rows=len(validation),
            chosen={
                "rank": rank,
                "initial_deviation": deviation,
                "iteration": best.iteration,
                "best_validation_logloss": best.logloss,
            },
            libraries=("myfm", "scikit-learn"),
            split=tables.score(ndtr(best.form.of(validation))),
        ),
    )


class BestIteration:
    """Judges a machine after each iteration of its fit, keeps the best, and ends the fit when it gains no longer.

    Parameters
    ----------
    judge
        The validation logloss, in nats, of what a machine says before the probit link.
    iterations, patience
        How many there are at most, and how many without gain end the fit.
    progress
        Where to say how it goes.

    Attributes
    ----------
    form : QuadraticForm
        The best machine's score function.
    iteration : int
        Its number, from 1.
    logloss : float
        Its validation logloss.
    """

    form: QuadraticForm
    iteration = 0
    logloss = math.inf

    def __init__(
        self, judge: Callable[[QuadraticForm], float], iterations: int, patience: int, progress: Progress
    ) -> None:
        self._judge, self._iterations, self._patience, self._progress = judge, iterations, patience, progress

    def __call__(self, index: int, fitted: Any, _hyperparameters: object, _history: object) -> tuple[bool, None]:
        """Look at an iteration, as myfm calls it; say whether to stop."""
        done = index + 1
        form = score_function(fitted.w0, fitted.w, fitted.V)
        loss = self._judge(form)
        if loss < self.logloss:
            self.form, self.iteration, self.logloss = form, done, loss
        where = f"iteration {done:,} of at most {self._iterations:,}, validation logloss {loss:.5f}"
        self._progress.update(done / self._iterations, where)
        return done - self.iteration >= self._patience, None


def score_function(bias: float, weights: NDArray[np.float64], vectors: NDArray[np.float64]) -> QuadraticForm:
    """Write a machine's score, w0 + w'x + sum over i < j of (v_i'v_j) x_i x_j, as a quadratic form.

    It is Rendle's w0 + w'x + ½ Σ ((V'x)² - (V²)'x²) (Factorization Machines, ICDM 2010), whose halves are the same.

    Parameters
    ----------
    bias, weights, vectors
        w0, w of shape (columns,), and V of shape (columns, rank).
    """
    return QuadraticForm(np.triu(vectors @ vectors.T, 1), np.array(weights), float(bias))


def _machine(rank: int, deviation: float, seed: int) -> VariationalFMClassifier:
    # read when tqdm is imported, which myfm does: a bar that draws over itself is no use in a log
    os.environ["TQDM_DISABLE"] = "1"
    from myfm import VariationalFMClassifier

    return VariationalFMClassifier(rank=rank, init_stdev=deviation, random_seed=seed % _SEEDS)


def _dense_rows(matrix: NDArray[np.float32]) -> csr_matrix:
    """Put a matrix without holes into the sparse form that myfm wants; scipy's own way takes three times the memory."""
    rows, columns = matrix.shape
    places = np.tile(np.arange(columns, dtype=np.int32), rows)
    starts = np.arange(0, rows * columns + 1, columns, dtype=np.int32)
    return csr_matrix((matrix.astype(np.float64).ravel(), places, starts), shape=matrix.shape)


def _memory(rows: int, columns: int) -> float:
    return 400 + 75e-6 * rows * columns
