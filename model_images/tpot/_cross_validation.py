"""Evaluation of a pipeline by cross-validation over eras, and predictions of a pipeline that is fitted on all rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.metrics import log_loss

from numerai_contract import batches
from numerai_contract.exits import ModelFailureError
from numerai_contract.predictions import CLIP_MARGIN, MIN_STD
from numerai_contract.scores import COIN_TOSS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._training_data import TrainingData

# nats: a pipeline whose loss on the first fold exceeds a constant's by more cannot become the best
_EARLY_REJECT_MARGIN = 0.01


class CvResult(NamedTuple):
    """The result of a cross-validation.

    Attributes
    ----------
    loss : float
        Logloss over the folds, in nats.
    cut_short : bool
        Whether the pipeline was rejected after its first fold; then the loss is that of this fold.
    """

    loss: float
    cut_short: bool


class Predictions(NamedTuple):
    """The predictions of a pipeline that is fitted on all training rows.

    Attributes
    ----------
    tournament : numpy.ndarray of float64, shape (rows of the tournament,)
    validation : numpy.ndarray of float64, shape (rows of the split's validation part,)
    """

    tournament: NDArray[np.float64]
    validation: NDArray[np.float64]


def evaluate(pipeline: Any, data: TrainingData) -> CvResult:
    """Cross-validate a pipeline.

    Raises
    ------
    ModelFailureError
        When its predictions of a fold are constant.
    """
    probabilities = np.empty(len(data.labels))
    for fold in np.unique(data.folds):
        held_out = data.folds == fold
        fitted = clone(pipeline).fit(data.features[~held_out], data.labels[~held_out])
        probabilities[held_out] = _probabilities(fitted, data.features[held_out])
        _require_variation(probabilities[held_out])
        loss = _loss(data.labels[held_out], probabilities[held_out])
        if fold == 0 and loss > COIN_TOSS + _EARLY_REJECT_MARGIN:
            return CvResult(loss, cut_short=True)
    return CvResult(_loss(data.labels, probabilities), cut_short=False)


def predict(pipeline: Any, data: TrainingData, rows: int) -> Predictions:
    """Fit a pipeline on all training rows and predict.

    Parameters
    ----------
    pipeline
        Not fitted; it is not changed.
    data
        The training data.
    rows
        Number of rows of the tournament table.

    Raises
    ------
    ModelFailureError
        When the predictions are constant, or not probabilities.
    """
    fitted = clone(pipeline).fit(data.features, data.labels)

    def probabilities(block: NDArray[np.float32]) -> NDArray[np.float64]:
        return _probabilities(fitted, data.preprocessing.transform(block))

    tournament = batches.predict(data.tables.tournament_batches(), rows, probabilities)
    _require_variation(tournament)
    return Predictions(tournament, probabilities(data.tables.validation_features()))


def _probabilities(fitted: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    found: NDArray[np.float64] = fitted.predict_proba(features)[:, 1].astype(np.float64)
    if not np.isfinite(found).all():
        raise ModelFailureError("a prediction is not a number")
    return found.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)


def _require_variation(probabilities: NDArray[np.float64]) -> None:
    if len(probabilities) > 1 and probabilities.std() < MIN_STD:
        raise ModelFailureError(f"it predicts {probabilities[0]:.6f} for every row")


def _loss(labels: NDArray[np.int8], probabilities: NDArray[np.float64]) -> float:
    return float(log_loss(labels, probabilities, labels=[0, 1]))
