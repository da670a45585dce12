"""Evaluation of a pipeline by cross-validation over eras, and its fit on all training rows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.base import clone
from sklearn.metrics import log_loss
from sklearn.pipeline import make_pipeline

from numerai_contract import batches
from numerai_contract.eras import NO_FOLD
from numerai_contract.exits import ModelFailureError
from numerai_contract.predictions import CLIP_MARGIN, MIN_STD
from numerai_contract.scores import COIN_TOSS

from ._training_data import fold_marks

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.split_tables import SplitTables
    from numerai_contract.tables import Table

    from ._training_data import TrainingData

# nats: a pipeline whose loss on the first fold exceeds a constant's by more cannot become the best
_EARLY_REJECT_MARGIN = 0.01
# rows that the pipeline of the final fit must be able to predict
_CHECKED_ROWS = 1_000


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


class Trained(NamedTuple):
    """A pipeline that is fitted on all training rows, and its predictions.

    Attributes
    ----------
    pipeline : sklearn.pipeline.Pipeline
        Fitted, with the preprocessing.
    predictions : numpy.ndarray of float64, shape (rows of the predicted table,)
    on_split : numpy.ndarray of float64, shape (rows of the split's validation part,)
    """

    pipeline: Any
    predictions: NDArray[np.float64]
    on_split: NDArray[np.float64]


def evaluate(pipeline: Any, data: TrainingData) -> CvResult:
    """Cross-validate a pipeline.

    Raises
    ------
    ModelFailureError
        When its predictions of a fold are constant.
    """
    predicted = np.empty(len(data.labels))
    for fold, (learned, held_out) in enumerate(fold_marks(data.folds)):
        fitted = clone(pipeline).fit(data.features[learned], data.labels[learned])
        predicted[held_out] = probabilities(fitted, data.features[held_out])
        _require_variation(predicted[held_out])
        loss = _loss(data.labels[held_out], predicted[held_out])
        if fold == 0 and loss > COIN_TOSS + _EARLY_REJECT_MARGIN:
            return CvResult(loss, cut_short=True)
    scored = data.folds != NO_FOLD
    return CvResult(_loss(data.labels[scored], predicted[scored]), cut_short=False)


def train(pipeline: Any, data: TrainingData, table: Table) -> Trained:
    """Fit a pipeline on all training rows and predict.

    Parameters
    ----------
    pipeline
        Not fitted, without the preprocessing; it is not changed.
    data
        The training data.
    table
        The table to predict.

    Raises
    ------
    ModelFailureError
        When the predictions are constant, or not probabilities.
    """
    fitted = clone(pipeline).fit(data.features, data.labels)
    whole = make_pipeline(*_steps(data.preprocessing), *_steps(fitted))
    predictions = batches.predict(
        data.tables.source.batches(table), len(table), lambda block: probabilities(whole, block)
    )
    _require_variation(predictions)
    return Trained(whole, predictions, probabilities(whole, data.tables.validation_features()))


def train_again(pipeline: Any, tables: SplitTables) -> Any:
    """Fit a pipeline on the training rows of the final fit.

    Parameters
    ----------
    pipeline
        With the preprocessing; it is not changed.
    tables
        The training rows.

    Raises
    ------
    ModelFailureError
        When its predictions of the first rows are constant, or not probabilities.
    """
    features = tables.training_features()
    fitted = clone(pipeline).fit(features, tables.training_labels)
    _require_variation(probabilities(fitted, features[:_CHECKED_ROWS]))
    return fitted


def probabilities(fitted: Any, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Predict rows with a fitted pipeline; shape (rows,).

    Raises
    ------
    ModelFailureError
        When a prediction is not a number.
    """
    found: NDArray[np.float64] = fitted.predict_proba(features)[:, 1].astype(np.float64)
    if not np.isfinite(found).all():
        raise ModelFailureError("a prediction is not a number")
    return found.clip(CLIP_MARGIN, 1 - CLIP_MARGIN)


def _require_variation(predicted: NDArray[np.float64]) -> None:
    if len(predicted) > 1 and predicted.std() < MIN_STD:
        raise ModelFailureError(f"it predicts {predicted[0]:.6f} for every row")


def _steps(pipeline: Any) -> list[Any]:
    return [step for _, step in pipeline.steps]


def _loss(labels: NDArray[np.int8], predicted: NDArray[np.float64]) -> float:
    return float(log_loss(labels, predicted, labels=[0, 1]))
