"""Two ensembles of all models whose predictions are whole, each written as predictions like any model's.

``ensemble_geometric_mean``
    The geometric mean of the probabilities, joined on the id. That of the probabilities of a 0 would not add up with it
    to one, and by itself it is biased towards 0: so it is divided by the sum of both. Predictions are kept from 0 and 1
    by one millionth beforehand.
``ensemble_selection``
    A weighted mean, the weights by greedy forward selection with replacement (`_selection`). Where targets are 0 or 1,
    of the probabilities, by logloss: of ranks, there is no logloss to speak of. Else of the ranks in the era, by mean
    CORR. It is selected on every second era with known targets, beginning with the first, and scored on the others, so
    that the reported gain is not that of hindsight. Targets reach over several weeks: neighbouring eras know a little
    of each other. What a walk-forward run hides from the models (``targets.parquet``) is hidden from it as well.

With one model, without two eras of known targets, or when no model has a score on the first half, all weights are equal
and the report says why.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.predictions import CLOSEST_TO_EDGE, write_predictions
from numerai_contract.tables import DATA_TYPES, Table
from numerai_contract.task import Learned

from ._gathered import ENSEMBLE_PREFIX, FOLDER, gather
from ._selection import objective, select
from ._truth import what_came_true
from .evaluate import prepare_self_test as prepare_self_test  # noqa: PLC0414 (the same predictions will do)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._truth import Era, Truth

GEOMETRIC_MEAN = f"{ENSEMBLE_PREFIX}geometric_mean"
SELECTION = f"{ENSEMBLE_PREFIX}selection"


def run(task: Task) -> None:
    """Make both ensembles."""
    table, storing, inputs = task.tournament, task.parameters.storing, task.parameters.inputs
    gathered = gather(storing, table)
    for name, why in gathered.left_out.items():
        task.note(f"left out: {name} ({why})")
    models = gathered.of_kind("model")
    names = [model.name for model in models]
    probabilities = np.column_stack([model.predictions for model in models])
    truth = what_came_true(task.training, table)
    parts = probabilities if truth.binary else _ranks(probabilities, truth.era_numbers, table)
    weights, told = _weights(task, names, parts, truth)
    for name, predictions in ((GEOMETRIC_MEAN, geometric_mean(probabilities)), (SELECTION, parts @ weights)):
        inside = predictions.clip(CLOSEST_TO_EDGE, 1 - CLOSEST_TO_EDGE)
        write_predictions(storing / FOLDER / f"{name}.csv", table.ids, inside, inputs)
    chosen = {
        GEOMETRIC_MEAN: {"models": names},
        SELECTION: {"weights": dict(zip(names, weights.tolist(), strict=True)), **told},
        "left_out": sorted(gathered.left_out),
    }
    learned = Learned(len(truth.rows), chosen=chosen, libraries=("numerai-tools", "pandas", "scipy"))
    task.conclude(learned, f"{GEOMETRIC_MEAN} and {SELECTION} of {len(models)} models")


def geometric_mean(probabilities: NDArray[np.float64]) -> NDArray[np.float64]:
    """Average probabilities geometrically, so that those of 1 and of 0 add up to one.

    Parameters
    ----------
    probabilities
        In (0, 1), shape (rows, models).

    Returns
    -------
    numpy.ndarray of float64, shape (rows,)
        In (0, 1).
    """
    kept = probabilities.clip(CLOSEST_TO_EDGE, 1 - CLOSEST_TO_EDGE)
    of_one, of_zero = np.exp(np.log(kept).mean(axis=1)), np.exp(np.log1p(-kept).mean(axis=1))
    mean: NDArray[np.float64] = of_one / (of_one + of_zero)
    return mean


def _ranks(predictions: NDArray[np.float64], eras: NDArray[np.int32], table: Table) -> NDArray[np.float64]:
    """Rank each model's predictions within their era, from 0 to 1, both excluded; ties share their mean rank.

    Rows whose era is not told are ranked with those of their data type.
    """
    groups = eras.astype(np.int64) * len(DATA_TYPES)
    for code, data_type in enumerate(DATA_TYPES):
        groups[table.of_type(data_type)] += code
    ranks = np.empty_like(predictions)
    order = np.argsort(groups, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(groups[order])) + 1):
        ranks[rows] = (rankdata(predictions[rows], axis=0) - 0.5) / len(rows)
    return ranks


def _weights(
    task: Task, names: list[str], parts: NDArray[np.float64], truth: Truth
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Choose the weights, and tell how: the weights, shape (models,), and what the report says of them."""
    equal = np.full(len(names), 1 / len(names))
    if len(names) == 1:
        return equal, _fallen_back(task, f"{names[0]} is the only model: both ensembles are what it predicts")
    if len(truth.eras) < 2:
        return equal, _fallen_back(
            task, f"{len(truth.eras)} eras have known targets, and it takes two to choose weights: they are equal"
        )
    first_half, other_half = truth.eras[::2], truth.eras[1::2]
    score = objective(parts, first_half, binary=truth.binary)
    with task.progress.step(f"selecting among {len(names)} models on {len(first_half)} eras"):
        selected = select(score, len(names), task.progress.update)
    if selected is None:
        return equal, _fallen_back(task, "no model has a score on the eras to choose weights on: they are equal")
    honest = objective(parts, other_half, binary=truth.binary)
    best = int(np.argmax(score(np.eye(len(names)))))
    of_best = np.eye(len(names))[:, best]
    told = {
        "objective": "logloss" if truth.binary else "mean CORR of the eras",
        "best_model": names[best],
        "picked": [names[pick] for pick in selected.picks],
        "chosen_on": _scored(score, first_half, selected.weights, of_best, equal, binary=truth.binary),
        "scored_on": _scored(honest, other_half, selected.weights, of_best, equal, binary=truth.binary),
        "equal_weights_because": None,
    }
    return selected.weights, told


def _fallen_back(task: Task, why: str) -> dict[str, Any]:
    task.note(f"{SELECTION}: {why}")
    return {"equal_weights_because": why}


def _scored(
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    eras: tuple[Era, ...],
    selected: NDArray[np.float64],
    best: NDArray[np.float64],
    equal: NDArray[np.float64],
    *,
    binary: bool,
) -> dict[str, Any]:
    """Score the selection on some eras, beside the model that was best on those chosen on, and equal weights.

    The gain is what the selection has over that model; more is better.
    """
    scores = score(np.column_stack([selected, best, equal]))
    known = [None if found == -np.inf else float(found) for found in scores]
    gain = None if known[0] is None or known[1] is None else known[0] - known[1]
    ours, theirs, plain = ((None if found is None else -found) if binary else found for found in known)
    return {
        "eras": [era.number for era in eras],
        "score": ours,
        "best_model_score": theirs,
        "equal_weights_score": plain,
        "gain": gain,
    }


def check_self_test(storing: Path) -> None:
    """See that both ensembles are whole and say something."""
    table = Table(storing / "tournament.parquet")
    for name in (GEOMETRIC_MEAN, SELECTION):
        found = {entry.name: entry for entry in gather(storing, table).entries}.get(name)
        if found is None or found.predictions.std() < CLOSEST_TO_EDGE:
            raise BadDataError(f"self-test of ensemble: there is no good {name}.csv")
        outputs.verify(storing / FOLDER / f"{name}.csv")
