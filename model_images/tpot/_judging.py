"""What is done with a pipeline: judged on eras it has not seen, or fitted on all and asked for predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.metrics import log_loss

from numerai_contract.exits import ModelFailureError
from numerai_contract.predictions import CLOSEST_TO_EDGE, SMALLEST_SPREAD
from numerai_contract.scores import COIN_TOSS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._lesson import Lesson

# nats: a pipeline that does worse than a coin by more on its first fold will not become the best on the others
_HOPELESS = 0.01


class Judgement(NamedTuple):
    """How good a pipeline is.

    Attributes
    ----------
    loss : float
        Logloss over the folds, in nats.
    cut_short : bool
        Whether the first fold was enough to see that it is no good; the loss is that fold's then.
    """

    loss: float
    cut_short: bool


class Forecast(NamedTuple):
    """What a pipeline predicts, fitted on all there is to learn from.

    Attributes
    ----------
    tournament : numpy.ndarray of float64, shape (rows of the tournament,)
    validation : numpy.ndarray of float64, shape (rows of the split's validation part,)
    """

    tournament: NDArray[np.float64]
    validation: NDArray[np.float64]


def judge(pipeline: Any, lesson: Lesson) -> Judgement:
    """Cross-validate a pipeline.

    Raises
    ------
    ModelFailureError
        When it says the same of every row of a fold.
    """
    probabilities = np.empty(len(lesson.labels))
    for fold in np.unique(lesson.folds):
        held_out = lesson.folds == fold
        fitted = clone(pipeline).fit(lesson.features[~held_out], lesson.labels[~held_out])
        probabilities[held_out] = _probabilities(fitted, lesson.features[held_out])
        _refuse_constant(probabilities[held_out])
        loss = _loss(lesson.labels[held_out], probabilities[held_out])
        if fold == 0 and loss > COIN_TOSS + _HOPELESS:
            return Judgement(loss, cut_short=True)
    return Judgement(_loss(lesson.labels, probabilities), cut_short=False)


def forecast(pipeline: Any, lesson: Lesson, rows: int) -> Forecast:
    """Fit a pipeline on all rows to learn from and predict.

    Parameters
    ----------
    pipeline
        Not fitted, and left so.
    lesson
        What it learns from.
    rows
        Of the tournament table.

    Raises
    ------
    ModelFailureError
        When it says the same of every row, or something that is no probability.
    """
    fitted = clone(pipeline).fit(lesson.features, lesson.labels)
    tournament = np.empty(rows)
    for positions, block in lesson.tables.tournament_batches():
        tournament[positions] = _probabilities(fitted, lesson.preparation.transform(block))
    _refuse_constant(tournament)
    validation = _probabilities(fitted, lesson.preparation.transform(lesson.tables.validation_features()))
    return Forecast(tournament, validation)


def _probabilities(fitted: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    said: NDArray[np.float64] = fitted.predict_proba(features)[:, 1].astype(np.float64)
    if not np.isfinite(said).all():
        raise ModelFailureError("it predicts something that is not a number")
    return said.clip(CLOSEST_TO_EDGE, 1 - CLOSEST_TO_EDGE)


def _refuse_constant(probabilities: NDArray[np.float64]) -> None:
    if len(probabilities) > 1 and probabilities.std() < SMALLEST_SPREAD:
        raise ModelFailureError(f"it predicts {probabilities[0]:.6f} for every row")


def _loss(labels: NDArray[np.int8], probabilities: NDArray[np.float64]) -> float:
    return float(log_loss(labels, probabilities, labels=[0, 1]))
