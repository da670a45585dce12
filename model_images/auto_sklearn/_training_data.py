"""The training data of a search: training rows, held-out rows, and their labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract import eras, targets
from numerai_contract.exits import BadDataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from numerai_contract.task import Task

_HELD_OUT_SHARE = 0.2
_MIN_ROWS = 10


class TrainingData(NamedTuple):
    """The training data, in the order that auto-sklearn needs.

    Attributes
    ----------
    kind : str
        "classifier" or "regressor".
    features : numpy.ndarray of float32, shape (rows, features)
        Of the training rows, then of the held-out rows, of which the final fit has none.
    labels : numpy.ndarray, shape (rows,)
        In the same order.
    training_rows : int
        Number of training rows.
    embargo : int
        Weeks left out between the two parts.
    """

    kind: str
    features: NDArray[Any]
    labels: NDArray[Any]
    training_rows: int
    embargo: int


def load(task: Task, row_limit: int) -> TrainingData:
    """Read the training rows, the held-out rows, and their labels: at most `row_limit` rows."""
    training, seed = task.training, task.parameters.seed
    binary = targets.target_kind(training.targets) is targets.TargetKind.BINARY
    kind = "classifier" if binary else "regressor"
    rows, labels = _labeled_rows(task, kind, row_limit)
    era_numbers = training.era_numbers[rows]
    if len(labels) < _MIN_ROWS:
        raise BadDataError(f"{training.path.name}: {len(labels)} rows with a known target are too few for a search.")

    split = eras.hold_out_last(era_numbers, share=_HELD_OUT_SHARE, embargo=task.parameters.embargo, seed=seed)
    if not _both_vary(labels, split):
        # too few eras, or classes distributed too unevenly among them
        split = eras.hold_out_last(np.zeros_like(era_numbers), share=_HELD_OUT_SHARE, embargo=0, seed=seed)
    if not _both_vary(labels, split):
        raise BadDataError(
            f"{training.path.name}: column 'target' has hardly more than one value in {len(labels):,} rows; "
            "training rows and held-out rows must both have several. Is the training set complete?"
        )
    training_rows = int(split.training.sum())
    task.note(f"{split.description}: {training_rows:,} training rows, {split.held_out.sum():,} held-out rows")
    features = _features(task, rows)
    order = np.concatenate([np.flatnonzero(split.training), np.flatnonzero(split.held_out)])
    return TrainingData(kind, features[order], labels[order], training_rows, split.embargo)


def load_all(task: Task, kind: str, row_limit: int) -> TrainingData:
    """Read the rows of the final fit, all of them training rows, for a model of this kind."""
    rows, labels = _labeled_rows(task, kind, row_limit)
    return TrainingData(kind, _features(task, rows), labels, len(labels), 0)


def _labeled_rows(task: Task, kind: str, row_limit: int) -> targets.LabeledRows:
    training = task.training
    labeled = targets.classes(training) if kind == "classifier" else targets.values(training)
    return task.sample_rows(labeled, row_limit)


def _features(task: Task, rows: NDArray[np.bool_]) -> NDArray[np.float32]:
    features = task.training.features(rows).astype(np.float32, copy=False)
    # some candidates would drop a column without any value, and others fail on it
    features[:, np.isnan(features).all(axis=0)] = 0
    return features


def _both_vary(labels: NDArray[Any], split: eras.HoldOut) -> bool:
    return bool(np.ptp(labels[split.training]) > 0 and np.ptp(labels[split.held_out]) > 0)
