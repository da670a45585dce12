"""A penalised linear model on the split, its penalty selected along a path by the validation part.

A penalty is one of the mean loss of the rows, so that it means the same on any number of rows; scikit-learn's C, which
multiplies the sum of their losses, is 1 / (penalty * rows). The final fit has the selected penalty, without a path.

Fits of a path go from the strongest penalty to the weakest, each starts at the weights of the one before, and the path
ends early when the validation loss has risen twice in a row. The default path is extended while the penalty at one of
its ends is the best.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_contract.exits import BadParameterError
from numerai_contract.imputation import Medians

from ._quadratic import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from numerai_contract.feature_matrix import FeatureMatrix
    from numerai_contract.parameters import Parameters
    from numerai_contract.split_tables import SplitTables
    from numerai_contract.task import Task

    from ._quadratic import Loss, QuadraticForm

PENALTIES = (30.0, 10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
"""The default path; its last penalty is about that of the original."""

_MIN_COST, _MAX_COST = 1e-9, 1e6
# a stronger penalty leaves almost constant predictions
_MIN_PENALTY, _MAX_PENALTY = 1e-6, 300.0
# from one penalty of an extended path to the next
_STEP = 10**0.5
_MAX_RISES = 2


class FittingData(NamedTuple):
    """The data of a split that a path is fitted to.

    Attributes
    ----------
    matrix, validation : FeatureMatrix, shape (rows, columns)
        Of the training and of the validation rows, imputed; the final fit has no validation rows.
    medians : Medians
        Of the training rows.
    terms : Terms
        Of the training rows.
    """

    matrix: FeatureMatrix
    validation: FeatureMatrix
    medians: Medians
    terms: Terms

    @classmethod
    def read(cls, task: Task, tables: SplitTables) -> FittingData:
        """Read and impute both parts of the split."""
        with task.progress.step("reading the features and measuring their products"):
            matrix = tables.matrix(tables.training)
            medians = Medians(matrix)
            terms = Terms(matrix.impute(medians), task.parameters.threads)
            return cls(matrix, tables.matrix(tables.validation).impute(medians), medians, terms)


class PathFit(NamedTuple):
    """The best model of a path, or the one of the final fit, whose path is empty.

    Attributes
    ----------
    form : QuadraticForm
    penalty : float
        Of the mean loss.
    cost : float
        Its C.
    path : list of dict
        ``C`` and validation ``logloss``, in nats, of each fit, in the order of the fits.
    """

    form: QuadraticForm
    penalty: float
    cost: float
    path: list[dict[str, float]]


def read_costs(parameters: Parameters, defaults: Sequence[float]) -> list[float]:
    """Read C, one cost or several separated by commas; ascending.

    Raises
    ------
    BadParameterError
        When the costs are not different positive numbers.
    """
    default = ",".join(f"{cost:g}" for cost in defaults)
    text = parameters.get_str("C", default)
    try:
        costs = sorted(float(part) for part in text.split(","))
    except ValueError:
        costs = []
    if not costs or len(set(costs)) < len(costs) or not all(_MIN_COST <= cost <= _MAX_COST for cost in costs):
        raise BadParameterError(
            f"C is {text!r}: allowed are different numbers from {_MIN_COST:g} to {_MAX_COST:,.0f}, separated by "
            f"commas, such as {default}. Correct it in models.yaml."
        )
    return costs


def read_penalties(parameters: Parameters) -> Callable[[float], list[float]] | None:
    """Read C, so that an invalid one fails before the work.

    Returns
    -------
    callable or None
        From the number of summands of the loss to the penalties of the costs, the strongest first; None where C is not
        set, for the default path.
    """
    if "C" not in parameters:
        return None
    costs = read_costs(parameters, (1e-4,))
    return lambda weight: [1 / (cost * weight) for cost in costs]


def fit_path(
    task: Task,
    terms: Terms,
    penalties: Callable[[float], list[float]] | None,
    evaluate: Callable[[QuadraticForm], float],
    *,
    loss: Loss,
    weight: float,
    **fitting: Any,
) -> PathFit:
    """Fit one model for each penalty and return the best.

    Parameters
    ----------
    task
        For its log and notes.
    terms, loss, weight, fitting
        See `Terms.fit`.
    penalties
        From `read_penalties`.
    evaluate
        Computes the validation loss of a model, in nats.
    """
    progress = task.progress
    given = list(PENALTIES) if penalties is None else penalties(weight)
    path: list[dict[str, float]] = []
    fits: dict[float, tuple[float, NDArray[np.float64]]] = {}

    def fit(penalty: float, start: NDArray[np.float64] | None) -> float:
        """Fit a penalty and return its validation loss; one that is not a number is the worst."""
        cost = 1 / (penalty * weight)
        position = f"C = {cost:.3g}, {len(path) + 1} of about {len(given)}"

        def log_iteration(iteration: int) -> None:
            progress.update(min(1.0, len(path) / len(given)), f"{position}: iteration {iteration:,}")

        weights = terms.fit(loss, cost, weight=weight, start=start, on_iteration=log_iteration, **fitting)
        logloss = evaluate(terms.form(weights))
        progress.log(f"{position}: validation logloss {logloss:.5f}")
        path.append({"C": cost, "logloss": logloss})
        fits[penalty] = (math.inf if math.isnan(logloss) else logloss), weights
        return fits[penalty][0]

    def best() -> float:
        return min(fits, key=lambda penalty: fits[penalty][0])

    with progress.step(f"fitting {terms.count:,} terms along a path of {len(given)}"):
        rises, last, weights = 0, math.inf, None
        for penalty in given:
            logloss = fit(penalty, weights)
            weights = fits[penalty][1]
            rises = rises + 1 if logloss > last else 0
            last = logloss
            if rises == _MAX_RISES:
                break
        if penalties is None:
            for end, step in ((given[0], _STEP), (given[-1], 1 / _STEP)):
                while best() == end and _MIN_PENALTY <= end * step <= _MAX_PENALTY:
                    fit(end * step, fits[end][1])
                    end *= step  # noqa: PLW2901 (the path has a new end)
    selected = best()
    cost = 1 / (selected * weight)
    task.note(f"selected C = {cost:.3g}, a penalty of {selected:.3g} of the mean loss, of {len(path)} along the path")
    return PathFit(terms.form(fits[selected][1]), selected, cost, path)


def fit_penalty(task: Task, terms: Terms, penalty: float, *, loss: Loss, weight: float, **fitting: Any) -> PathFit:
    """Fit the model of the final fit, whose penalty is known.

    Parameters
    ----------
    task
        For its log.
    terms, loss, weight, fitting
        See `Terms.fit`.
    penalty
        Of the mean loss.
    """
    cost = 1 / (penalty * weight)

    def log_iteration(iteration: int) -> None:
        task.progress.update(0.0, f"C = {cost:.3g}: iteration {iteration:,}")

    with task.progress.step(f"fitting {terms.count:,} terms with C = {cost:.3g}"):
        weights = terms.fit(loss, cost, weight=weight, on_iteration=log_iteration, **fitting)
        return PathFit(terms.form(weights), penalty, cost, [])
