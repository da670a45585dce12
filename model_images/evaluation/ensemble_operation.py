"""Two ensembles of all models with complete predictions, each written as predictions.

``ensemble_geometric_mean``
    The geometric mean of the probabilities, joined on the id. It and the geometric mean of the probabilities of class 0
    do not add up to one, and it is biased towards 0: so it is divided by the sum of both. Predictions are clipped to a
    distance of one millionth from 0 and 1 beforehand.
``ensemble_selection``
    A weighted mean, with weights by greedy forward selection with replacement (`_selection`). For targets of 0 and 1,
    of the probabilities, by logloss, which is not defined for ranks. Otherwise of the ranks in the era, by mean CORR.
    It is selected on every second era with known targets, starting with the first, and scored on the others, so that
    the reported gain is out of sample. Targets reach over several weeks, so neighbouring eras are slightly dependent.
    The targets that a walk-forward run hides from the models (``targets.parquet``) are hidden from it as well.

With one model, with fewer than two eras of known targets, or when no model has a score on the first half, all weights
are equal and the report has the reason.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import rankdata

from numerai_contract import outputs
from numerai_contract.exits import BadDataError
from numerai_contract.predictions import CLIP_MARGIN, write_predictions
from numerai_contract.tables import DATA_TYPES, Table
from numerai_contract.task import TrainingSummary

from ._prediction_files import ENSEMBLE_PREFIX, FOLDER, load_predictions
from ._selection import objective, select
from ._targets import known_targets
from .evaluate_operation import prepare_self_test as prepare_self_test  # noqa: PLC0414 (the same predictions)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.task import Task

    from ._targets import Era, KnownTargets

GEOMETRIC_MEAN = f"{ENSEMBLE_PREFIX}geometric_mean"
SELECTION = f"{ENSEMBLE_PREFIX}selection"


def run(task: Task) -> None:
    """Write both ensembles."""
    table, storing, inputs = task.tournament, task.parameters.storing, task.parameters.inputs
    found = load_predictions(storing, table)
    for name, why in found.left_out.items():
        task.note(f"left out: {name} ({why})")
    models = found.of_kind("model")
    names = [model.name for model in models]
    probabilities = np.column_stack([model.predictions for model in models])
    targets = known_targets(task.training, table)
    parts = probabilities if targets.binary else _ranks(probabilities, targets.era_numbers, table)
    weights, details = _weights(task, names, parts, targets)
    for name, predictions in ((GEOMETRIC_MEAN, geometric_mean(probabilities)), (SELECTION, parts @ weights)):
        clipped = predictions.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)
        write_predictions(storing / FOLDER / f"{name}.csv", table.ids, clipped, inputs)
    chosen = {
        GEOMETRIC_MEAN: {"models": names},
        SELECTION: {"weights": dict(zip(names, weights.tolist(), strict=True)), **details},
        "left_out": sorted(found.left_out),
    }
    summary = TrainingSummary(len(targets.rows), chosen=chosen, libraries=("numerai-tools", "pandas", "scipy"))
    task.write_report(summary, f"{GEOMETRIC_MEAN} and {SELECTION} of {len(models)} models")


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
    clipped = probabilities.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)
    of_one, of_zero = np.exp(np.log(clipped).mean(axis=1)), np.exp(np.log1p(-clipped).mean(axis=1))
    mean: NDArray[np.float64] = of_one / (of_one + of_zero)
    return mean


def _ranks(predictions: NDArray[np.float64], eras: NDArray[np.int32], table: Table) -> NDArray[np.float64]:
    """Rank each model's predictions within their era, from 0 to 1, both excluded; ties share their mean rank.

    Rows of an unknown era are ranked with the rows of their data type.
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
    task: Task, names: list[str], parts: NDArray[np.float64], targets: KnownTargets
) -> tuple[NDArray[np.float64], dict[str, Any]]:
    """Select the weights, shape (models,); return them and their entries in the report."""
    equal = np.full(len(names), 1 / len(names))
    if len(names) == 1:
        return equal, _equal_weights(task, f"{names[0]} is the only model: both ensembles equal its predictions")
    if len(targets.eras) < 2:
        return equal, _equal_weights(
            task, f"{len(targets.eras)} eras have known targets, and the selection needs two: weights are equal"
        )
    first_half, other_half = targets.eras[::2], targets.eras[1::2]
    score = objective(parts, first_half, binary=targets.binary)
    with task.progress.step(f"selecting among {len(names)} models on {len(first_half)} eras"):
        selected = select(score, len(names), task.progress.update)
    if selected is None:
        return equal, _equal_weights(task, "no model has a score on the eras of the selection: weights are equal")
    other_score = objective(parts, other_half, binary=targets.binary)
    best = int(np.argmax(score(np.eye(len(names)))))
    of_best = np.eye(len(names))[:, best]
    details = {
        "objective": "logloss" if targets.binary else "mean CORR of the eras",
        "best_model": names[best],
        "selected": [names[pick] for pick in selected.picks],
        "selected_on": _scored(score, first_half, selected.weights, of_best, equal, binary=targets.binary),
        "scored_on": _scored(other_score, other_half, selected.weights, of_best, equal, binary=targets.binary),
        "equal_weights_because": None,
    }
    return selected.weights, details


def _equal_weights(task: Task, reason: str) -> dict[str, Any]:
    task.note(f"{SELECTION}: {reason}")
    return {"equal_weights_because": reason}


def _scored(
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    eras: tuple[Era, ...],
    selected: NDArray[np.float64],
    best: NDArray[np.float64],
    equal: NDArray[np.float64],
    *,
    binary: bool,
) -> dict[str, Any]:
    """Score the selection on some eras, together with the best model on the selection's eras and with equal weights.

    The gain is the difference of the selection and this model; more is better.
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
    """Check that both ensembles are complete and not constant."""
    table = Table(storing / "tournament.parquet")
    for name in (GEOMETRIC_MEAN, SELECTION):
        found = {entry.name: entry for entry in load_predictions(storing, table).entries}.get(name)
        if found is None or found.predictions.std() < CLIP_MARGIN:
            raise BadDataError(f"self-test of ensemble: {name}.csv is missing or constant")
        outputs.verify(storing / FOLDER / f"{name}.csv")
