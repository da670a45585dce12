"""The ensemble of the best candidates, and its predictions."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from numerai_contract import batches

from ._library import BINARY_CLASSIFICATION, REGRESSION, EnsembleSelection
from ._search import metric_of
from ._search_log import CONSTANT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import Table

    from ._plan import Plan
    from ._search_log import Candidate

# draws with replacement in the selection of an ensemble
_DRAWS = 20
# the weight of the best candidate when none beats the constant, as constant predictions are useless
_MIN_SHARE = 0.1
_ROWS_AT_A_TIME = 8_192


class Predictions(NamedTuple):
    """The predictions of an ensemble.

    Attributes
    ----------
    predictions : numpy.ndarray of float64, shape (rows of the tournament,)
    members : list of (int, float)
        Numbers of the candidates and their weights, the largest first; `CONSTANT` may be among them.
    held_out_loss : float
        The metric of the ensemble on the held-out rows.
    """

    predictions: NDArray[np.float64]
    members: list[tuple[int, float]]
    held_out_loss: float


def predict(plan: Plan, candidates: Sequence[Candidate], held_out: NDArray[Any], tournament: Table) -> Predictions:
    """Select an ensemble from candidates and predict the tournament.

    Parameters
    ----------
    plan
        Of the search.
    candidates
        At least one.
    held_out
        The labels of the held-out rows, shape (rows,).
    tournament
        The table to predict.
    """
    numbers = [CONSTANT, *(candidate.number for candidate in candidates)]
    on_held_out = [_unpickle(plan.held_out_predictions(number)).astype(np.float64) for number in numbers]
    task_type = BINARY_CLASSIFICATION if plan.kind == "classifier" else REGRESSION
    selection = EnsembleSelection(
        task_type=task_type,
        metrics=[metric_of(plan.kind)],
        backend=None,
        ensemble_size=_DRAWS,
        random_state=plan.seed,
    )
    selection.fit(on_held_out, held_out, [(plan.seed, number, 0.0) for number in numbers], runs=[])
    weights = {number: float(weight) for number, weight in zip(numbers, selection.weights_) if weight > 0}
    loss = float(selection.train_loss_)
    if set(weights) == {CONSTANT}:
        best = 1 + int(np.argmin([candidate.cost for candidate in candidates]))
        weights = {CONSTANT: 1 - _MIN_SHARE, numbers[best]: _MIN_SHARE}
        mixed = (1 - _MIN_SHARE) * on_held_out[0] + _MIN_SHARE * on_held_out[best]
        metric = metric_of(plan.kind)
        loss = float(metric._optimum - metric(held_out, mixed))  # its scores are better when larger
    constant = float(on_held_out[0].reshape(len(held_out), -1)[0, -1])
    members = sorted(weights.items(), key=lambda member: -member[1])
    # the search uses all cores: beside it, several threads that wait for each other are slower than one
    with threadpool_limits(1):
        return Predictions(_predict(plan, weights, constant, tournament), members, loss)


def _predict(plan: Plan, weights: Mapping[int, float], constant: float, tournament: Table) -> NDArray[np.float64]:
    models = [(_unpickle(plan.model(number)), weight) for number, weight in weights.items() if number != CONSTANT]

    def weighted_mean(block: NDArray[Any]) -> NDArray[np.float64]:
        rows = block.astype(np.float32, copy=False)
        mean = np.full(len(rows), weights.get(CONSTANT, 0.0) * constant)
        for model, weight in models:
            one = model.predict_proba(rows)[:, 1] if plan.kind == "classifier" else model.predict(rows).ravel()
            # a regressor may exceed [0, 1]; clipped before the mean, so that one does not distort it
            mean += weight * np.clip(one, 0, 1)
        return mean.clip(0, 1)

    return batches.predict(tournament.batches(), len(tournament), weighted_mean, rows_at_a_time=_ROWS_AT_A_TIME)


def _unpickle(path: Path) -> Any:
    with path.open("rb") as stream:
        return pickle.load(stream)  # noqa: S301 (written by this operation, in its own directory)
