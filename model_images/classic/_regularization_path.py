"""A penalised linear model on the split, its cost C selected along a path by the validation part.

The final fit has the selected cost, without a path. Fits of a path go from the strongest penalty to the weakest, each
starts at the weights of the one before, and the path ends early when the validation logloss has risen twice in a row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_contract.exits import BadParameterError
from numerai_contract.imputation import Medians

from ._quadratic import Terms

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numerai_contract.feature_matrix import FeatureMatrix
    from numerai_contract.parameters import Parameters
    from numerai_contract.split_tables import SplitTables
    from numerai_contract.task import Task

    from ._quadratic import Loss, QuadraticForm

COSTS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The default path; its last cost is the one of the original."""

_MIN_COST, _MAX_COST = 1e-9, 1e6
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
    cost : float
        Its C.
    path : list of dict
        ``C`` and validation ``logloss``, in nats, of each fit, in the order of the fits.
    """

    form: QuadraticForm
    cost: float
    path: list[dict[str, float]]


def read_costs(parameters: Parameters, defaults: Sequence[float] = COSTS) -> list[float]:
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


def fit_path(
    task: Task,
    terms: Terms,
    costs: Sequence[float],
    evaluate: Callable[[QuadraticForm], float],
    *,
    loss: Loss,
    **fitting: Any,
) -> PathFit:
    """Fit one model for each cost and return the best.

    Parameters
    ----------
    task
        For its log and notes.
    terms, loss, fitting
        See `Terms.fit`.
    costs
        Ascending, at least one.
    evaluate
        Computes the validation logloss of a model, in nats.
    """
    progress = task.progress
    path: list[dict[str, float]] = []
    weights = None
    lowest = last = math.inf
    rises = 0
    with progress.step(f"fitting {terms.count:,} terms along a path of {len(costs)}"):
        for number, cost in enumerate(costs):
            position = f"C = {cost:g}, {number + 1} of at most {len(costs)}"

            def log_iteration(iteration: int, share: float = number / len(costs), position: str = position) -> None:
                progress.update(share, f"{position}: iteration {iteration:,}")

            weights = terms.fit(loss, cost, start=weights, on_iteration=log_iteration, **fitting)
            form = terms.form(weights)
            logloss = evaluate(form)
            progress.log(f"{position}: validation logloss {logloss:.5f}")
            path.append({"C": cost, "logloss": logloss})
            if logloss < lowest:
                best, lowest = PathFit(form, cost, path), logloss
            rises = rises + 1 if logloss > last else 0
            last = logloss
            if rises == _MAX_RISES:
                break
    task.note(f"selected C = {best.cost:g} of {', '.join(f'{cost:g}' for cost in costs)}")
    return best


def fit_cost(task: Task, terms: Terms, cost: float, *, loss: Loss, **fitting: Any) -> PathFit:
    """Fit the model of the final fit, whose cost is known.

    Parameters
    ----------
    task
        For its log.
    terms, cost, loss, fitting
        See `Terms.fit`.
    """

    def log_iteration(iteration: int) -> None:
        task.progress.update(0.0, f"C = {cost:g}: iteration {iteration:,}")

    with task.progress.step(f"fitting {terms.count:,} terms with C = {cost:g}"):
        return PathFit(terms.form(terms.fit(loss, cost, on_iteration=log_iteration, **fitting)), cost, [])
