"""Ensembles by greedy forward selection with replacement.

As in Caruana and others, "Ensemble Selection from Libraries of Models", 2004: start with an empty set, and
repeatedly add the model that improves the mean of all added models most; a model may be added several times. The weight
of a model is its share of the additions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from numerai_contract.scores import logloss

from ._metrics import FastContribution, FastCorr, has_contribution

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from ._payout import Payout
    from ._targets import Era

Scorer = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
"""From means of ranks in an era, shape (means, rows), to their scores, shape (means,); NaN where undefined."""
Score = Callable[["NDArray[np.float64]"], "NDArray[np.float64]"]
"""From weights, shape (models, candidates), to scores, shape (candidates,); see `objective`."""
_Piece = tuple["NDArray[np.float64]", list[tuple[float, Scorer]]]
"""The parts of an era, shape (models, rows), and its scores with their multipliers."""
ROUNDS = 50
# rounds without an improvement after which the selection ends
MAX_ROUNDS_WITHOUT_GAIN = 10
_GAIN = 1e-12


class PaidScores(NamedTuple):
    """A payout score, and the data that its parts need beside the targets.

    Attributes
    ----------
    payout : Payout
        The payout score.
    meta_model : numpy.ndarray of float64, shape (rows,), or None
        The meta model's predictions, NaN where it has none; needed for MMC.
    """

    payout: Payout
    meta_model: NDArray[np.float64] | None

    def has(self, era: Era) -> bool:
        """Check whether all parts are defined in an era."""
        if "mmc" not in self.payout.multipliers:
            return True
        return self.meta_model is not None and has_contribution(self.meta_model[era.rows], era.targets)

    def scorers(self, era: Era) -> list[tuple[float, Scorer]]:
        """Return the multiplier and the function of each part in an era that has them."""
        make: dict[str, Callable[[], Scorer]] = {
            "corr": lambda: FastCorr(era.targets),
            "mmc": lambda: FastContribution(np.asarray(self.meta_model)[era.rows], era.targets),
        }
        return [(multiplier, make[part]()) for part, multiplier in self.payout.multipliers.items()]


def objective(
    parts: NDArray[np.float64],
    eras: Sequence[Era],
    *,
    binary: bool,
    paid: PaidScores | None = None,
    apply: Callable[..., Iterable[NDArray[np.float64]]] = map,
) -> Score:
    """Create the function that scores weighted means of the models on some eras.

    Parameters
    ----------
    parts
        Probabilities or ranks, to be averaged, shape (rows, models).
    eras
        The known targets.
    binary
        Whether to score by logloss over all rows.
    paid
        Otherwise, the payout score, whose mean is over the eras that have all of its parts; without it, the mean of
        CORR over the eras that have one.
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

    pieces: list[_Piece] = []
    for era in eras:
        if paid is None or paid.has(era):
            scorers: list[tuple[float, Scorer]] = [(1.0, FastCorr(era.targets))] if paid is None else paid.scorers(era)
            pieces.append((np.ascontiguousarray(parts[era.rows].T), scorers))
    if not pieces:
        return lambda weights: np.full(weights.shape[1], -np.inf)

    def by_mean(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        def of_era(piece: _Piece) -> NDArray[np.float64]:
            blended = weights.T @ piece[0]
            found: NDArray[np.float64] = np.sum([multiplier * score(blended) for multiplier, score in piece[1]], axis=0)
            return found

        scores = np.array(list(apply(of_era, pieces)))
        known = ~np.isnan(scores)
        sums = np.where(known, scores, 0.0).sum(axis=0)
        return np.where(known.any(axis=0), sums / np.maximum(known.sum(axis=0), 1), -np.inf)

    return by_mean


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
    score: Score,
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
