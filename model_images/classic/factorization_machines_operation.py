"""A factorization machine of second order, by myfm.

Every product of two features has a weight, which is the product of two short vectors, one of each feature.

The vectors are learned by variational inference with a probit link, which determines their penalty from the data. It
learns classes on the split's training part; after each iteration the validation part is predicted, and the best
iteration is used. The final fit has as many iterations, on all rows.

The validation part is also predicted by the machine's linear part alone, without the products. Where that is better,
the products hurt: the report has both losses and a warning, and the model is the linear part after its best iteration.
The reason is that the products of weak effects are mostly noise: in five of five generated worlds with effects as weak
as Numerai's they made the machine worse than its linear part.

Features and t-SNE's coordinates are standardised, and not expanded. The original used their polynomial of degree 2;
measured on 20,000 rows with a known weak signal (a constant 0.5 has the logloss .6931), this was worse (.6936 against
.6887) and took 33 times as long: a factorization machine has products of two features already, and products of four
hide the signal.

Environment variables:

``RANK`` (8)
    Length of the vectors.
``MAX_ITERATIONS`` (100), ``EARLY_STOPPING`` (20)
    Maximum number of iterations, and number without improvement of the machine after which the fit ends. On a weak
    signal the best is among the first few.
``PRODUCTS`` (``better``)
    ``always``, as in 2016, keeps the products where the linear part alone is better, with the note.
``INITIAL_DEVIATION`` (0.01)
    Standard deviation of the initial vectors: with myfm's default of 0.1 the initial noise is larger than the signal
    (.6901 instead of .6887 on the same data).
``EMBEDDINGS`` (the five embeddings of the features), ``ROW_LIMIT`` (30 million values: 600,000 rows of 50 features)
    See `numerai_contract.split_tables`. Features are left out first, down to the 100 with the largest correlation with
    the target, see `_split_plan`.
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.sparse import csr_matrix
from scipy.special import ndtr
from sklearn.preprocessing import StandardScaler

from numerai_contract import targets
from numerai_contract.embeddings import STANDARD
from numerai_contract.fitting import Fitted
from numerai_contract.imputation import Medians
from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import TrainingSummary

from ._quadratic import QuadraticForm
from ._quadratic_model import QuadraticModel
from ._split_plan import split_plan

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from myfm import VariationalFMClassifier
    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Plan, Sizes
    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

prepare_self_test = write_fixture_inputs

_EMBEDDINGS = tuple(embedding for embedding in STANDARD if not embedding.polynomial)
_MAX_VALUES = 30_000_000
# myfm's matrices of float64 by rows and by columns, and their copies: 50 measured on 339,000 rows of 52 columns
_BYTES_OF_A_VALUE = 60
# myfm takes a signed number of 32 bits
_SEEDS = 2**31


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the rows and features of a fit, whose time is proportional to both."""
    return split_plan(
        parameters,
        sizes,
        _EMBEDDINGS,
        max_work=_MAX_VALUES,
        power=1,
        needed=lambda rows, columns: rows * columns * _BYTES_OF_A_VALUE,
    )


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the split's training part and select the best iteration; the final fit has as many iterations."""
    rank = task.parameters.get_int("RANK", 8, at_least=1, at_most=256)
    iterations = task.parameters.get_int("MAX_ITERATIONS", 100, at_least=1, at_most=10_000)
    early_stopping = task.parameters.get_int("EARLY_STOPPING", 20, at_least=1, at_most=10_000)
    deviation = task.parameters.get_float("INITIAL_DEVIATION", 0.01, at_least=1e-6, at_most=1)
    keeps_products = task.parameters.get_str("PRODUCTS", "better", choices=("better", "always")) == "always"
    plan_of_fit = plan(task.parameters, task.sizes)
    tables = SplitTables(task, targets.classes(task.training), embeddings=_EMBEDDINGS, plan=plan_of_fit)
    rows = len(tables.training_labels)

    with task.progress.step("reading the features"):
        matrix = tables.matrix(tables.training)
        medians = Medians(matrix)
        scaler = StandardScaler(copy=False)
        training = _dense_rows(scaler.fit_transform(matrix.impute(medians)[:]))
        del matrix
        validation = tables.matrix(tables.validation).impute(medians)

    def unscaled(form: QuadraticForm) -> QuadraticForm:
        return form.unscaled(scaler.mean_, scaler.scale_)

    def evaluate(form: QuadraticForm) -> float:
        return tables.logloss(ndtr(unscaled(form).compute(validation)))

    if earlier is not None:
        iterations = earlier.choice.iterations
    best = BestIteration(None if earlier else evaluate, iterations, early_stopping, task.progress)
    machine = _classifier(rank, deviation, task.parameters.seed)
    with task.progress.step(f"fitting vectors of {rank} on {rows:,} rows"):
        machine.fit(training, tables.training_labels, n_iter=iterations, callback=best)
    del training
    hurt = best.linear.logloss < best.whole.logloss
    products = earlier.choice.products if earlier else keeps_products or not hurt
    used = best.whole if products else best.linear
    model = QuadraticModel(tables.source, medians, unscaled(used.form), ndtr)
    chosen = {"rank": rank, "initial_deviation": deviation, "iteration": used.iteration, "products": products}
    choice = Choice(used.iteration, products)
    if earlier is not None:
        return Fitted(model, TrainingSummary(training_rows=rows, chosen=chosen), choice)
    task.note(f"best validation logloss {best.whole.logloss:.5f} at iteration {best.whole.iteration:,}")
    if hurt:
        task.note(
            f"warning: the products hurt: without them the best validation logloss is {best.linear.logloss:.5f}, at "
            f"iteration {best.linear.iteration:,}; the model {'keeps' if products else 'leaves out'} its products"
        )
    chosen |= {"best_validation_logloss": best.whole.logloss, "linear_validation_logloss": best.linear.logloss}
    summary = TrainingSummary(
        training_rows=rows,
        held_out_rows=len(validation),
        chosen=chosen,
        libraries=("myfm", "scikit-learn"),
        split=tables.score(model.predict_imputed(validation)),
    )
    return Fitted(model, summary, choice)


def load(task: Task, directory: Path) -> QuadraticModel:
    """Load a saved model."""
    return QuadraticModel.load(task, directory, ndtr)


class Choice(NamedTuple):
    """The choice of the first fit: the number of iterations, and whether the model has its products."""

    iterations: int
    products: bool


class Best(NamedTuple):
    """The best form of the iterations so far, the number of its iteration, from 1, and its validation logloss."""

    form: QuadraticForm
    iteration: int
    logloss: float


class BestIteration:
    """Evaluates a machine after each iteration of its fit, stores the best, and stops the fit early.

    Parameters
    ----------
    evaluate
        Computes the validation logloss, in nats, of a machine's score function, which excludes the probit link. None
        in the final fit: the last iteration is then the best.
    iterations, early_stopping
        Maximum number of iterations, and number without improvement after which the fit ends.
    progress
        The progress log.

    Attributes
    ----------
    whole, linear : Best
        The best score function, and the best without its products.
    """

    whole: Best
    linear: Best

    def __init__(
        self,
        evaluate: Callable[[QuadraticForm], float] | None,
        iterations: int,
        early_stopping: int,
        progress: Progress,
    ) -> None:
        self._evaluate, self._iterations, self._early_stopping = evaluate, iterations, early_stopping
        self._progress = progress

    def __call__(self, index: int, fitted: Any, _hyperparameters: object, _history: object) -> tuple[bool, None]:
        """Evaluate an iteration (a callback of myfm); return whether to stop."""
        done = index + 1
        form = score_function(fitted.w0, fitted.w, fitted.V)
        whole, linear = (
            Best(each, done, math.nan if self._evaluate is None else self._evaluate(each))
            for each in (form, form._replace(products=np.zeros_like(form.products)))
        )
        if self._evaluate is None:
            self.whole, self.linear = whole, linear
            self._progress.update(done / self._iterations, f"iteration {done:,} of {self._iterations:,}")
            return False, None
        if index == 0 or whole.logloss < self.whole.logloss:
            self.whole = whole
        if index == 0 or linear.logloss < self.linear.logloss:
            self.linear = linear
        position = f"iteration {done:,} of at most {self._iterations:,}, validation logloss {whole.logloss:.5f}"
        self._progress.update(done / self._iterations, position)
        return done - self.whole.iteration >= self._early_stopping, None


def score_function(bias: float, weights: NDArray[np.float64], vectors: NDArray[np.float64]) -> QuadraticForm:
    """Convert a machine's score, w0 + w'x + sum over i < j of (v_i'v_j) x_i x_j, to a quadratic form.

    It is Rendle's w0 + w'x + ½ Σ ((V'x)² - (V²)'x²) (Factorization Machines, ICDM 2010), whose halves are the same.

    Parameters
    ----------
    bias, weights, vectors
        w0, w of shape (columns,), and V of shape (columns, rank).
    """
    return QuadraticForm(np.triu(vectors @ vectors.T, 1), np.array(weights), float(bias))


def _classifier(rank: int, deviation: float, seed: int) -> VariationalFMClassifier:
    # read when myfm imports tqdm: a progress bar that overwrites its line does not belong in a log
    os.environ["TQDM_DISABLE"] = "1"
    from myfm import VariationalFMClassifier

    return VariationalFMClassifier(rank=rank, init_stdev=deviation, random_seed=seed % _SEEDS)


def _dense_rows(matrix: NDArray[np.float32]) -> csr_matrix:
    """Convert a matrix without missing values to the sparse format of myfm; scipy's conversion takes 3x the memory."""
    rows, columns = matrix.shape
    columns_of_values = np.tile(np.arange(columns, dtype=np.int32), rows)
    starts = np.arange(0, rows * columns + 1, columns, dtype=np.int32)
    return csr_matrix((matrix.astype(np.float64).ravel(), columns_of_values, starts), shape=matrix.shape)
