"""Linear models of a row's polynomial of degree 2, fitted without computing its terms.

A weighted sum of the terms of a row x is a quadratic form, x'Ax + b'x + c with A upper triangular; standardising the
terms only changes A, b and c. So the sums of a block of rows X are the row sums of (XA + b) * X, and the gradient of a
loss of these sums with slopes g needs X'g and X'diag(g)X: small matrix products instead of hundreds of terms a row.
They are computed by blocks, in float64, since float32 is too imprecise for the line search of L-BFGS.

The blocks are distributed over a pool of threads, and a matrix product uses one thread: the products are too small to
divide, and BLAS threads that wait for each other on a busy machine make a fit ten times as long. Parts are summed in
the order of the rows, so that the result does not depend on the number of threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy.optimize import minimize
from threadpoolctl import threadpool_limits

from ._polynomial import Scaling, count

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.feature_matrix import FeatureMatrix

    # rows in memory, without missing values: features in numpy's float32, or as int8 that become it a block at a time
    Matrix = NDArray[np.float32] | FeatureMatrix
    # sums of the rows, shape (rows,) → the loss of all of them and its derivative by each sum, shape (rows,)
    Loss = Callable[[NDArray[np.float64]], tuple[float, NDArray[np.float64]]]

# a block of rows in float64, in bytes: small enough for a processor's cache, large enough for a fast matrix product
_BLOCK_BYTES = 1 << 19
# rows that a thread processes at a time
_ROWS_OF_A_PART = 1 << 13
# the gradient at which a fit ends: its probabilities are then within 1e-4 of the exact ones
_MAX_GRADIENT = 1e-6
_MAX_ITERATIONS = 1_000


class QuadraticForm(NamedTuple):
    """A fitted model: x'Ax + b'x + c.

    Attributes
    ----------
    products : numpy.ndarray of float64, shape (features, features)
        A, upper triangular.
    linear : numpy.ndarray of float64, shape (features,)
        b.
    constant : float
        c.
    """

    products: NDArray[np.float64]
    linear: NDArray[np.float64]
    constant: float

    def compute(self, matrix: Matrix) -> NDArray[np.float64]:
        """Compute its values for rows, shape (rows, features), without missing values; shape (rows,)."""
        sums = np.empty(len(matrix))
        for rows, block in _blocks(matrix):
            sums[rows] = np.einsum("rf,rf->r", block @ self.products + self.linear, block)
        return sums + self.constant

    def unscaled(self, means: NDArray[np.float64], scales: NDArray[np.float64]) -> QuadraticForm:
        """Return the form of x that equals this form of (x - means) / scales; both of shape (features,)."""
        products = self.products / np.outer(scales, scales)
        linear = self.linear / scales
        constant = self.constant - float(linear @ means) + float(means @ products @ means)
        return QuadraticForm(products, linear - (products + products.T) @ means, constant)


class Terms:
    """The standardised terms of a matrix's polynomial, the features of a linear model.

    Parameters
    ----------
    matrix
        Shape (rows, features), without missing values.
    threads
        Number of threads to use.
    """

    def __init__(self, matrix: Matrix, threads: int) -> None:
        self._matrix = matrix
        self._threads = threads
        self._parts = [slice(start, start + _ROWS_OF_A_PART) for start in range(0, len(matrix), _ROWS_OF_A_PART)]
        self._scaling = Scaling.of(matrix)
        features = matrix.shape[1]
        self._upper = np.triu_indices(features)
        self.count = count(features)

    def fit(
        self,
        loss: Loss,
        cost: float,
        *,
        weight: float,
        start: NDArray[np.float64] | None = None,
        intercept: bool = True,
        on_iteration: Callable[[int], None] = lambda _iteration: None,
    ) -> NDArray[np.float64]:
        """Find the weights w that minimise w'w / 2 + cost * loss, by L-BFGS.

        Parameters
        ----------
        loss
            Convex, of the weighted sums of the terms.
        cost
            scikit-learn's C: the weight of the loss relative to the penalty.
        weight
            The number of summands of the loss, such as the rows; the final gradient is relative to it.
        start
            Initial weights, such as those of another fit; by default all are 0.
        intercept
            Whether a constant, which is not penalised, is added to the sums.
        on_iteration
            Called after each iteration with its number, from 1.

        Returns
        -------
        numpy.ndarray of float64, shape (count + 1,)
            The terms' weights, then the constant.
        """
        ridge = 1 / (cost * weight)
        iterations = 0

        def value_and_gradient(weights: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            form = self.form(weights)
            value, slopes = loss(
                np.concatenate(list(pool.map(lambda rows: form.compute(self._matrix[rows]), self._parts)))
            )
            gradient = np.append(self._by_term(slopes, pool), slopes.sum() if intercept else 0.0) / weight
            gradient[:-1] += ridge * weights[:-1]
            return value / weight + ridge / 2 * float(weights[:-1] @ weights[:-1]), gradient

        def count_iterations(_weights: NDArray[np.float64]) -> None:
            nonlocal iterations
            iterations += 1
            on_iteration(iterations)

        with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(self._threads) as pool:
            found = minimize(
                value_and_gradient,
                np.zeros(self.count + 1) if start is None else start,
                jac=True,
                method="L-BFGS-B",
                callback=count_iterations,
                options={"gtol": _MAX_GRADIENT, "ftol": 0.0, "maxiter": _MAX_ITERATIONS, "maxls": 50},
            )
        weights: NDArray[np.float64] = found.x
        return weights

    def form(self, weights: NDArray[np.float64]) -> QuadraticForm:
        """Convert weights of the standardised terms, and a constant, to a form of the original features."""
        unscaled = weights[:-1] * self._scaling.scales
        features = self._matrix.shape[1]
        products = np.zeros((features, features))
        products[self._upper] = unscaled[features:]
        return QuadraticForm(products, unscaled[:features], float(weights[-1] - self._scaling.means @ unscaled))

    def _by_term(self, slopes: NDArray[np.float64], pool: ThreadPoolExecutor) -> NDArray[np.float64]:
        """Sum the rows' standardised terms, each row times its slope; shape (count,)."""
        features = self._matrix.shape[1]
        products, linear = np.zeros((features, features)), np.zeros(features)
        for products_of_part, linear_of_part in pool.map(
            lambda rows: _sloped_sums(self._matrix[rows], slopes[rows]), self._parts
        ):
            products += products_of_part
            linear += linear_of_part
        sums = np.concatenate([linear, products[self._upper]])
        standardised: NDArray[np.float64] = (sums - self._scaling.means * slopes.sum()) * self._scaling.scales
        return standardised


def _sloped_sums(
    matrix: NDArray[np.float32], slopes: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute X'diag(g)X and X'g."""
    features = matrix.shape[1]
    products, linear = np.zeros((features, features)), np.zeros(features)
    for rows, block in _blocks(matrix):
        sloped = block * slopes[rows, np.newaxis]
        products += sloped.T @ block
        linear += sloped.sum(axis=0)
    return products, linear


def _blocks(matrix: Matrix) -> Iterator[tuple[slice, NDArray[np.float64]]]:
    at_a_time = max(256, _BLOCK_BYTES // (8 * matrix.shape[1]))
    for start in range(0, len(matrix), at_a_time):
        rows = slice(start, start + at_a_time)
        yield rows, matrix[rows].astype(np.float64)
