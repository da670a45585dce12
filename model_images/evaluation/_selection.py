"""Ensembles by greedy forward selection with replacement.

As in Caruana and others, "Ensemble Selection from Libraries of Models", 2004: start with an empty set, and
repeatedly add the model that improves the mean of all added models most; a model may be added several times. The weight
of a model is its share of the additions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numerai_contract.scores import logloss

from ._metrics import FastCorr

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray

    from ._targets import Era

ROUNDS = 50
# rounds without an improvement after which the selection ends
MAX_ROUNDS_WITHOUT_GAIN = 10
_GAIN = 1e-12


def objective(
    parts: NDArray[np.float64],
    eras: Sequence[Era],
    *,
    binary: bool,
    apply: Callable[..., Iterable[NDArray[np.float64]]] = map,
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Create the function that scores weighted means of the models on some eras.

    Parameters
    ----------
    parts
        Probabilities or ranks, to be averaged, shape (rows, models).
    eras
        The known targets.
    binary
        Whether to score by logloss over all rows, or else by the mean of CORR over the eras that have one.
    apply
        Applies a function to each era, such as the `map` of a pool of threads.

    Returns
    -------
    callable
        From weights, shape (models, candidates), each candidate's adding up to one, to scores, shape (candidates,):
        larger is better, minus infinity where there is none.
    """
    if not eras:
        return lambda weights: np.full(weights.shape[1], -np.inf)
    if binary:
        rows = np.concatenate([parts[era.rows] for era in eras])
        targets = np.concatenate([era.targets for era in eras])

        def by_logloss(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            blended = rows @ weights
            found = [logloss(column, targets.astype(np.float32)) for column in blended.T]
            return np.array([-np.inf if loss is None else -loss for loss in found])

        return by_logloss

    pieces = [(np.ascontiguousarray(parts[era.rows].T), FastCorr(era.targets)) for era in eras]

    def by_corr(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.array(list(apply(lambda piece: piece[1](weights.T @ piece[0]), pieces)))
        known = ~np.isnan(scores)
        sums = np.where(known, scores, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), -np.inf)

    return by_corr


class Selection(NamedTuple):
    """A selection of models.

    Attributes
    ----------
    picks : list of int
        Indices of the models in the order of their addition, up to the best mean.
    weights : numpy.ndarray of float64, shape (models,)
        Adding up to one.
    score : float
        Of this mean, on the eras of the selection.
    """

    picks: list[int]
    weights: NDArray[np.float64]
    score: float


def select(
    score: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    models: int,
    report: Callable[[float, str], object] = lambda share, text: None,  # noqa: ARG005
) -> Selection | None:
    """Select greedily.

    Parameters
    ----------
    score
        See `objective`.
    models
        Number of models to select from.
    report
        Called with the share that is done and a description.

    Returns
    -------
    Selection or None
        None when no model has a score. Among equal models the first is added.
    """
    counts = np.zeros(models)
    picks: list[int] = []
    best: Selection | None = None
    for turn in range(1, ROUNDS + 1):
        scores = score((counts[:, np.newaxis] + np.eye(models)) / turn)
        pick = int(np.argmax(scores))
        if scores[pick] == -np.inf:
            break
        counts[pick] += 1
        picks.append(pick)
        if best is None or scores[pick] > best.score + _GAIN:
            best = Selection(picks.copy(), counts / turn, float(scores[pick]))
        report(turn / ROUNDS, f"model {turn} of at most {ROUNDS}")
        if turn - len(best.picks) >= MAX_ROUNDS_WITHOUT_GAIN:
            break
    return best
