"""Ensembles by greedy forward selection with replacement.

As in Caruana and others, "Ensemble Selection from Libraries of Models", 2004: begin with nothing; again and again add
the model that makes the mean of all added so far best, the same one as often as it helps. How often each was added is
its weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numerai_contract.scores import logloss

from ._metrics import corr

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from ._truth import Era

ROUNDS = 50
# rounds without a gain after which it is over
PATIENCE = 10
# a mean of equal values may differ from them in the last digits; that must not break ties
_DECIMALS = 12
_GAIN = 1e-12


def objective(
    parts: NDArray[np.float64], eras: Sequence[Era], *, binary: bool
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """Make the function that says how good weighted means of the models are on these eras.

    Parameters
    ----------
    parts
        What is averaged, probabilities or ranks, shape (rows of the tournament table, models).
    eras
        What came true.
    binary
        Whether to score by logloss over all rows, or else by the mean of CORR over the eras that have one.

    Returns
    -------
    callable
        From weights, shape (models, candidates), each candidate's adding up to one, to scores, shape (candidates,): the
        larger the better, minus infinity where there is none.
    """
    pieces = [(parts[era.rows], era.targets) for era in eras]
    if not pieces:
        return lambda weights: np.full(weights.shape[1], -np.inf)
    if binary:
        rows, targets = np.concatenate([piece for piece, _ in pieces]), np.concatenate([era.targets for era in eras])

        def by_logloss(weights: NDArray[np.float64]) -> NDArray[np.float64]:
            blended = rows @ weights
            found = [logloss(column, targets.astype(np.float32)) for column in blended.T]
            return np.array([-np.inf if loss is None else -loss for loss in found])

        return by_logloss

    def by_corr(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        scores = np.array([corr(np.round(piece @ weights, _DECIMALS), truth) for piece, truth in pieces])
        known = ~np.isnan(scores)
        sums = np.where(known, scores, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), -np.inf)

    return by_corr


class Selection(NamedTuple):
    """What was selected.

    Attributes
    ----------
    picks : list of int
        Places of the models in the order they were added, up to the best mean of all.
    weights : numpy.ndarray of float64, shape (models,)
        Adding up to one.
    score : float
        Of that mean, on what it was selected on.
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
        How many there are to select from.
    report
        Told how far it is.

    Returns
    -------
    Selection or None
        None when no model has a score. Of equally good models the first is added.
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
        if turn - len(best.picks) >= PATIENCE:
            break
    return best
