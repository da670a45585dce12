"""A support vector machine with a radial kernel that learns from all rows, and calibrated probabilities.

The kernel of two rows of F standardised features is exp(-d² / 2F), with their distance d. Nyström's method approximates
it by the kernels of a row with some of the rows, the *landmarks*: a machine is then linear in these, one pass over the
rows sums up all that it needs, and a prediction takes as many kernels as there are landmarks. Signals of a tournament
are so weak that hardly a row is outside the margin. The machine therefore counts all rows as support vectors with
squared errors (a least-squares support vector machine), for which there is a solution in closed form.

A sigmoid converts margins to probabilities, with the slope and the offset of two classes with normal margins of the
same variance. Its margins are those of eras that are not in the fit: the eras are divided into three folds of
consecutive eras, and each fold has the margins of a machine of the two others. The slope is positive, with a least
value for margins that do not separate the classes or do so inversely, as weak signals on few eras may do by chance: the
probabilities then have the order of the margins and a standard deviation of 0.001.

Environment variables:

``C`` (0.0025)
    The weight of a row's squared error relative to the penalty, as of scikit-learn's ``LinearSVC``; small, for a weak
    signal.
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

from ._standardized import Space

if TYPE_CHECKING:
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
        space = Space.of(rows, polynomial=False)
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
    # the interpreter and its libraries
    memory = 250 + sizes.open_tables
    # the sample, its imputed part, and the landmarks
    memory += (_SAMPLED_ROWS + 2 * landmarks) * features * 4 / 2**20
    # the kernels of a block of rows, and the sums of the folds with what solves them
    memory += (2 * _ROWS_AT_A_TIME * 4 + 12 * landmarks * 8) * landmarks / 2**20
    return Plan(min(row_limit, sizes.rows), features, memory)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:  # noqa: ARG001 - nothing is selected
    """Fit on the training table."""
    parameters = task.parameters
    cost = parameters.get_float("C", 0.0025, at_least=1e-9, at_most=1e6)
    planned = plan(parameters, task.sizes)
    labeled = task.sample_rows(targets.classes(task.training), planned.rows)
    task.follow(planned, labeled.rows)
    sampled = targets.sample(labeled, task.training.era_numbers, _SAMPLED_ROWS, seed=parameters.seed)
    features = task.training.features(sampled.rows).astype(np.float32, copy=False)
    kernel = Kernel.of(features, _landmarks(parameters), parameters.seed)
    del features
    with task.progress.step(f"fitting the SVM on {len(labeled.labels):,} rows"):
        sums = _sum_products(task, kernel, labeled)
        basis = _basis(kernel)
        penalty = 1 / (2 * cost * len(labeled.labels))
        machine = _solve(sums.sum(axis=0), basis, penalty)
        of_others = np.stack([_solve(sums.sum(axis=0) - of_fold, basis, penalty) for of_fold in sums])
    slope, offset, is_least = _calibrate(of_others, sums)
    if is_least:
        task.note("the margins of eras not in the fit do not separate the classes: the sigmoid has its least slope")
    weights = machine[:-2].astype(np.float32)
    summary = TrainingSummary(
        training_rows=len(labeled.labels),
        chosen={"C": cost, "landmarks": len(weights), "slope": slope},
        libraries=("scikit-learn",),
    )
    return Fitted(SvmModel(kernel, weights, float(machine[-2]), slope, offset), summary)


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
    numpy.ndarray, shape (folds, landmarks + 2, landmarks + 2)
    """
    training, count = task.training, len(labeled.labels)
    folds = eras.assign_folds(training.era_numbers[labeled.rows], _FOLDS)
    if folds is None:  # too few eras
        folds = np.arange(count) % _FOLDS
    landmarks = len(kernel.landmarks)
    sums = np.zeros((_FOLDS, landmarks + 2, landmarks + 2))
    first = 0
    blocks = training.batches(labeled.rows)
    for _, block in batches.iterate(blocks, count, report=task.progress.update, rows_at_a_time=_ROWS_AT_A_TIME):
        own = slice(first, first + len(block))
        columns = np.empty((len(block), landmarks + 2), dtype=np.float32)
        columns[:, :-2] = kernel.compute(kernel.standardize(block))
        columns[:, -2] = 1
        columns[:, -1] = 2 * labeled.labels[own] - 1
        for fold in np.unique(folds[own]):
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


class _Sigmoid(NamedTuple):
    slope: float
    offset: float
    is_least: bool  # whether the slope is the least one, for want of a larger one


def _calibrate(machines: NDArray[np.float64], sums: NDArray[np.float64]) -> _Sigmoid:
    """Compute the sigmoid from the margins of each fold by the machine that was not trained on it."""
    rows, labels = sums[:, -2, -2].sum(), sums[:, -2, -1].sum()
    total, with_label = (np.einsum("fc,fc->", machines, sums[:, :, column]) for column in (-2, -1))
    squares = np.einsum("fc,fcd,fd->", machines, sums, machines)
    above, below = (total + with_label) / (rows + labels), (total - with_label) / (rows - labels)
    share = (rows + labels) / (2 * rows)
    variance = max(squares / rows - (total / rows) ** 2, 1e-12)
    within = max(variance - share * (1 - share) * (above - below) ** 2, 1e-12)
    slope, least = (above - below) / within, _LEAST_SPREAD / math.sqrt(variance)
    is_least = bool(slope < least)
    slope = float(least if is_least else slope)
    return _Sigmoid(slope, float(math.log(share / (1 - share)) - slope * (above + below) / 2), is_least)
