"""A penalised linear model whose cost C is chosen along a path, by the split's validation part.

Fits go from the strongest penalty to the weakest, each begins where the last one ended, and the path ends early when
the validation logloss has risen twice in a row.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

from numerai_contract.exits import BadParameterError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress

    from ._quadratic import Loss, QuadraticForm, Terms

COSTS = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
"""The path unless C says otherwise; its end is the original's cost."""

_LEAST, _MOST = 1e-9, 1e6
_RISES = 2


class Chosen(NamedTuple):
    """The best model of a path.

    Attributes
    ----------
    form : QuadraticForm
    cost : float
        Its C.
    path : list of dict
        ``C`` and validation ``logloss``, in nats, of each fit, in the order they were made.
    """

    form: QuadraticForm
    cost: float
    path: list[dict[str, float]]


def read_costs(parameters: Parameters) -> list[float]:
    """Read C, one cost or several by comma; ascending.

    Raises
    ------
    BadParameterError
        When it is not different positive numbers.
    """
    usual = ",".join(f"{cost:g}" for cost in COSTS)
    text = parameters.text("C", usual)
    try:
        costs = sorted(float(part) for part in text.split(","))
    except ValueError:
        costs = []
    if not costs or len(set(costs)) < len(costs) or not all(_LEAST <= cost <= _MOST for cost in costs):
        raise BadParameterError(
            f"C is {text!r}: allowed are different numbers from {_LEAST:g} to {_MOST:,.0f}, by comma, such as {usual}. "
            "Correct it in models.yaml."
        )
    return costs


def choose(
    progress: Progress,
    terms: Terms,
    costs: Sequence[float],
    judge: Callable[[QuadraticForm], float],
    *,
    loss: Loss,
    **fitting: Any,
) -> Chosen:
    """Fit one model after another and keep the best.

    Parameters
    ----------
    progress
        Where to say how it goes.
    terms, loss, fitting
        What to fit, see `Terms.fit`.
    costs
        Ascending, at least one.
    judge
        The validation logloss of a model, in nats.
    """
    path: list[dict[str, float]] = []
    weights = None
    lowest = last = math.inf
    rises = 0
    with progress.step(f"fitting {terms.count:,} terms along a path of {len(costs)}"):
        for number, cost in enumerate(costs):
            said = f"C = {cost:g}, {number + 1} of at most {len(costs)}"

            def say(iteration: int, share: float = number / len(costs), said: str = said) -> None:
                progress.update(share, f"{said}: iteration {iteration:,}")

            weights = terms.fit(loss, cost, start=weights, say=say, **fitting)
            form = terms.form(weights)
            logloss = judge(form)
            progress.say(f"{said}: validation logloss {logloss:.5f}")
            path.append({"C": cost, "logloss": logloss})
            if logloss < lowest:
                best, lowest = Chosen(form, cost, path), logloss
            rises = rises + 1 if logloss > last else 0
            last = logloss
            if rises == _RISES:
                break
    return best
