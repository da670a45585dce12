"""A support vector machine with a radial kernel that learns from all rows, and calibrated probabilities.

The kernel of two rows of F standardised features is exp(-d² / 2F), with their distance d. Nyström's method approximates
it by the kernels of a row with some of the rows, the *landmarks*: a machine is then linear in these, one pass over the
rows sums up all that it needs, and a prediction takes as many kernels as there are landmarks. Signals of a tournament
are so weak that hardly a row is outside the margin. The machine therefore counts all rows as support vectors with
squared errors (a least-squares support vector machine), for which there is a solution in closed form.

A sigmoid converts margins to probabilities, with the slope and the offset of two classes with normal margins of the
same variance. Its margins are those of eras that are not in the fit: the eras are divided into three folds of
consecutive eras, with the run's EMBARGO between them, and each fold has the margins of a machine of the two others. The
slope is positive, with a least value for margins that do not separate the classes or do so inversely, as weak signals
on few eras may do by chance: the probabilities then have the order of the margins and a standard deviation of 0.001.

Environment variables:

``C`` (0.0025,0.01,0.04,0.16)
    The weight of a row's squared error relative to the penalty, as of scikit-learn's ``LinearSVC``: one number, or
    several. A larger one is selected only if it separates the classes better in each of the three folds, since the best
    on average is often chance. Of twelve generated tables with weak signals that vary by era, this rule selects the
    smallest for ten; the margins' mean correlation with the lasting signal is 0.585, with the best on average 0.564,
    with always the smallest 0.587. On a strong signal it selects the largest. The final fit has the same one.
``LANDMARKS`` (500)
    Number of landmarks. The time of a fit grows with its square, that of predictions with its number. A machine of many
    features needs many landmarks: it uses at most half as many features as landmarks, those with the largest
    correlation with the target.
``ROW_LIMIT`` (100,000,000)
    Maximum training rows; above it, a sample that keeps the share of every era and class.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.linalg import eigh, solve
from scipy.special import expit

from numerai_contract import batches, eras, saved_state, targets
from numerai_contract.fitting import Fitted
from numerai_contract.imputation import Medians
from numerai_contract.plans import Plan
from numerai_contract.task import TrainingSummary

from ._regularization_path import read_costs
from ._standardized import Space

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Sizes
    from numerai_contract.tables import TableView
    from numerai_contract.targets import LabeledRows
    from numerai_contract.task import Task

_FOLDS = 3
# rows of the medians, the scaling, and the landmarks
_SAMPLED_ROWS = 20_000
# rows whose kernels are computed at a time: few enough for the processor's cache
_ROWS_AT_A_TIME = 4_096
# the least standard deviation of the probabilities, in standard deviations of the sigmoid's argument (a quarter of it)
_LEAST_SPREAD = 0.004
# Landmarks for each feature: of 780 independent features with effects, 260 with 520 landmarks predict as well as all of
# them with 1,560, and better than all of them with 1,000; of 300, all with 500 as well as with 1,000.
_LANDMARKS_OF_A_FEATURE = 2
# directions of the landmarks with less of the kernel, relative to the largest, are not distinct from rounding
_RELATIVE_RANK = 1e-6
# of margins that are all the same
_LEAST_VARIANCE = 1e-12
_COSTS = (0.0025, 0.01, 0.04, 0.16)


class Kernel(NamedTuple):
    """The kernels of rows with the landmarks.

    Attributes
    ----------
    medians : Medians
        Replace missing values.
    means, scales : numpy.ndarray of float32, shape (features,)
        A feature becomes (value - mean) * scale; a constant feature has the scale 0.
    landmarks : numpy.ndarray of float32, shape (landmarks, features)
        Standardised.
    """

    medians: Medians
    means: NDArray[np.float32]
    scales: NDArray[np.float32]
    landmarks: NDArray[np.float32]

    @classmethod
    def of(cls, features: NDArray[np.float32], landmarks: int, seed: int) -> Kernel:
        """Measure a sample of rows, shape (rows, features) with NaN for missing values, and draw landmarks from it."""
        medians = Medians(features)
        rows = medians.fill(features)
        space = Space.of(rows, np.arange(rows.shape[1]), polynomial=False)
        drawn = np.sort(np.random.default_rng(seed).permutation(len(rows))[:landmarks])
        kernel = cls(medians, space.means, space.scales, landmarks=rows[:0])
        return kernel._replace(landmarks=kernel.standardize(rows[drawn]))

    def standardize(self, block: NDArray[Any]) -> NDArray[np.float32]:
        """Impute and standardise rows, shape (rows, features); the result is a copy of this shape."""
        values = self.medians.fill(block.astype(np.float32))
        values -= self.means
        values *= self.scales
        return values

    def compute(self, rows: NDArray[np.float32]) -> NDArray[np.float32]:
        """Compute the kernels of standardised rows, shape (rows, features), with the landmarks; (rows, landmarks)."""
        width = self.landmarks.shape[1]
        kernels: NDArray[np.float32] = rows @ (self.landmarks / width).T
        kernels -= (np.einsum("rf,rf->r", rows, rows) / (2 * width))[:, None]
        kernels -= np.einsum("lf,lf->l", self.landmarks, self.landmarks) / (2 * width)
        return np.exp(kernels, out=kernels)


class SvmModel(NamedTuple):
    """A machine that is linear in the kernels with the landmarks, and its sigmoid.

    Attributes
    ----------
    kernel : Kernel
    weights : numpy.ndarray of float32, shape (landmarks,)
    intercept : float
        The margin is the kernels' product with the weights, plus the intercept.
    slope, offset : float
        Of the sigmoid, as a function of the margin.
    """

    kernel: Kernel
    weights: NDArray[np.float32]
    intercept: float
    slope: float
    offset: float

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return task.predict_rows(table, table.batches(), self.predict_block, _ROWS_AT_A_TIME)

    def predict_block(self, block: NDArray[Any]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, features), with NaN for missing values; shape (rows,)."""
        margins = self.kernel.compute(self.kernel.standardize(block)) @ self.weights + self.intercept
        probabilities: NDArray[np.float64] = expit(self.slope * margins.astype(np.float64) + self.offset)
        return probabilities

    def save(self, directory: Path) -> None:
        """Save its arrays and numbers."""
        medians, means, scales, landmarks = self.kernel
        saved_state.save(
            directory,
            {
                "medians": medians.values,
                "means": means,
                "scales": scales,
                "landmarks": landmarks,
                "weights": self.weights,
            },
            {"intercept": self.intercept, "slope": self.slope, "offset": self.offset},
        )


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan the fits; see `numerai_contract.plans`."""
    landmarks = _landmarks(parameters)
    row_limit = parameters.get_int("ROW_LIMIT", 100_000_000, at_least=100, at_most=100_000_000)
    features = min(sizes.features, max(landmarks // _LANDMARKS_OF_A_FEATURE, 1))
    # the interpreter and its libraries, and a row group of the file: 535 MiB in all with 729,000 rows of 780 features
    # in row groups of 50,000, and 323 with 677,000 of 42
    memory = 250 + sizes.open_tables + 0.16 * sizes.features
    # the sample, its imputed part, and the landmarks
    memory += (_SAMPLED_ROWS + 2 * landmarks) * features * 4 / 2**20
    # the kernels of a block of rows, and the sums of the folds with what solves them
    memory += (2 * _ROWS_AT_A_TIME * 4 + 12 * landmarks * 8) * landmarks / 2**20
    return Plan(min(row_limit, sizes.rows), features, memory)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the training table; the final fit has the C of the first."""
    parameters = task.parameters
    costs = read_costs(parameters, _COSTS) if earlier is None else [earlier.choice]
    planned = plan(parameters, task.sizes)
    labeled = task.sample_rows(targets.classes(task.training), planned.rows)
    task.follow(planned, labeled.rows)
    sampled = targets.sample(labeled, task.training.era_numbers, _SAMPLED_ROWS, seed=parameters.seed)
    features = task.training.features(sampled.rows).astype(np.float32, copy=False)
    kernel = Kernel.of(features, _landmarks(parameters), parameters.seed)
    del features
    with task.progress.step(f"fitting the SVM on {len(labeled.labels):,} rows"):
        sums = _sum_products(task, kernel, labeled)
        cost, machine, margins = _select(costs, sums, _basis(kernel))
    slope, offset, is_least = _calibrate(margins)
    if is_least:
        task.note("the margins of eras not in the fit do not separate the classes: the sigmoid has its least slope")
    weights = machine[:-2].astype(np.float32)
    summary = TrainingSummary(
        training_rows=len(labeled.labels),
        chosen={"C": cost, "landmarks": len(weights), "slope": slope},
        libraries=("scipy",),
    )
    return Fitted(SvmModel(kernel, weights, float(machine[-2]), slope, offset), summary, choice=cost)


def load(task: Task, directory: Path) -> SvmModel:  # noqa: ARG001 - every operation has this signature
    """Load a saved model."""
    arrays, settings = saved_state.load(directory)
    kernel = Kernel(Medians.from_values(arrays["medians"]), arrays["means"], arrays["scales"], arrays["landmarks"])
    return SvmModel(kernel, arrays["weights"], **settings)


def _landmarks(parameters: Parameters) -> int:
    return parameters.get_int("LANDMARKS", 500, at_least=1, at_most=10_000)


def _sum_products(task: Task, kernel: Kernel, labeled: LabeledRows) -> NDArray[np.float64]:
    """Sum up the products of two columns, for each fold: the kernels, a column of 1, and the class as -1 or 1.

    Returns
    -------
    numpy.ndarray, shape (folds + 1, landmarks + 2, landmarks + 2)
        The last is that of the rows between the folds.
    """
    training, count = task.training, len(labeled.labels)
    folds = eras.assign_folds(training.era_numbers[labeled.rows], _FOLDS, task.parameters.embargo)
    if folds is None:  # too few eras
        folds = np.arange(count) % _FOLDS
    landmarks = len(kernel.landmarks)
    sums = np.zeros((_FOLDS + 1, landmarks + 2, landmarks + 2))
    first = 0
    blocks = training.batches(labeled.rows)
    for _, block in batches.iterate(blocks, count, report=task.progress.update, rows_at_a_time=_ROWS_AT_A_TIME):
        own = slice(first, first + len(block))
        columns = np.empty((len(block), landmarks + 2), dtype=np.float32)
        columns[:, :-2] = kernel.compute(kernel.standardize(block))
        columns[:, -2] = 1
        columns[:, -1] = 2 * labeled.labels[own] - 1
        for fold in np.unique(folds[own]):  # the last, for `NO_FOLD`
            of_fold = columns[folds[own] == fold]
            # float32 within a block of rows, float64 among blocks
            sums[fold] += of_fold.T @ of_fold
        first += len(block)
    return sums


def _basis(kernel: Kernel) -> NDArray[np.float64]:
    """Compute the functions of the landmarks' kernels that are orthonormal in the kernel's space.

    Returns
    -------
    numpy.ndarray, shape (landmarks, functions)
        Of each function the weights of the kernels; as many functions as there are distinct landmarks.
    """
    values, vectors = eigh(kernel.compute(kernel.landmarks).astype(np.float64))
    is_distinct = values > _RELATIVE_RANK * values[-1]
    basis: NDArray[np.float64] = vectors[:, is_distinct] / np.sqrt(values[is_distinct])
    return basis


def _solve(sums: NDArray[np.float64], basis: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Minimise the mean squared error plus the penalty on the squared norm in the space of the kernel.

    Parameters
    ----------
    sums
        See `_sum_products`; of all folds in the fit.
    basis
        See `_basis`.
    penalty
        The weight of the squared norm.

    Returns
    -------
    numpy.ndarray, shape (landmarks + 2,)
        The weights of the kernels, the intercept, and 0: the product with the columns of `_sum_products` is the margin.
    """
    rows = sums[-2, -2]
    means = sums[:-2, -2] / rows
    covariance = sums[:-2, :-2] / rows - np.outer(means, means)
    mean_label = sums[-2, -1] / rows
    with_label = sums[:-2, -1] / rows - means * mean_label
    system = basis.T @ covariance @ basis
    system[np.diag_indices_from(system)] += penalty
    weights = basis @ solve(system, basis.T @ with_label, assume_a="pos")
    return np.concatenate([weights, [mean_label - means @ weights, 0]])


class _Margins(NamedTuple):
    """The margins of each fold by a machine of the others; attributes are sums over its rows, of shape (folds,).

    Attributes
    ----------
    rows, labels, margins, products, squares : numpy.ndarray of float64
        Of 1, the class as -1 or 1, the margin, the product of the two, and the square of the margin.
    """

    rows: NDArray[np.float64]
    labels: NDArray[np.float64]
    margins: NDArray[np.float64]
    products: NDArray[np.float64]
    squares: NDArray[np.float64]

    @classmethod
    def of(cls, machines: NDArray[np.float64], sums: NDArray[np.float64]) -> _Margins:
        """Compute them from machines (see `_solve`), shape (folds, landmarks + 2), and the folds' sums of products."""
        margins, products = (np.einsum("fc,fc->f", machines, sums[:, :, column]) for column in (-2, -1))
        squares = np.einsum("fc,fcd,fd->f", machines, sums, machines)
        return cls(sums[:, -2, -2], sums[:, -2, -1], margins, products, squares)

    @property
    def separation(self) -> NDArray[np.float64]:
        """The covariance of margin and class in standard deviations of the margin, in each fold."""
        rows = np.maximum(self.rows, 1)
        variances = self.squares / rows - (self.margins / rows) ** 2
        covariances = self.products / rows - self.margins * self.labels / rows**2
        separation: NDArray[np.float64] = covariances / np.sqrt(np.maximum(variances, _LEAST_VARIANCE))
        return separation


def _select(
    costs: Sequence[float], sums: NDArray[np.float64], basis: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], _Margins]:
    """Fit with the smallest cost, or with a larger one as long as it separates the classes better in every fold.

    Returns
    -------
    cost : float
    machine : numpy.ndarray, shape (landmarks + 2,)
        Of all rows, see `_solve`.
    margins : _Margins
    """
    total, of_folds = sums.sum(axis=0), sums[:-1]
    penalties = [float(1 / (2 * cost * total[-2, -2])) for cost in costs]

    def margins_with(penalty: float) -> _Margins:
        machines = [_solve(total - sums[-1] - of_fold, basis, penalty) for of_fold in of_folds]
        return _Margins.of(np.stack(machines), of_folds)

    selected, margins = 0, margins_with(penalties[0])
    for larger in range(1, len(costs)):
        others = margins_with(penalties[larger])
        if not (others.separation > margins.separation).all():
            break
        selected, margins = larger, others
    return costs[selected], _solve(total, basis, penalties[selected]), margins


class _Sigmoid(NamedTuple):
    slope: float
    offset: float
    is_least: bool  # whether the slope is the least one, for want of a larger one


def _calibrate(of_folds: _Margins) -> _Sigmoid:
    """Compute the sigmoid from the margins of all folds."""
    rows, labels, margins, products, squares = (float(each.sum()) for each in of_folds)
    above, below = (margins + products) / (rows + labels), (margins - products) / (rows - labels)
    share = (rows + labels) / (2 * rows)
    variance = max(squares / rows - (margins / rows) ** 2, _LEAST_VARIANCE)
    within = max(variance - share * (1 - share) * (above - below) ** 2, _LEAST_VARIANCE)
    slope, least = (above - below) / within, _LEAST_SPREAD / math.sqrt(variance)
    is_least = slope < least
    slope = least if is_least else slope
    return _Sigmoid(slope, math.log(share / (1 - share)) - slope * (above + below) / 2, is_least)
