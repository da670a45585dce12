"""Gradient boosted trees by XGBoost, with early stopping on the latest eras.

It learns the target's value as a probability (``reg:logistic``), so the same model takes a target of 0 and 1 and a
graded one. Features are streamed from the file into histograms, so that neither table is ever in memory at once;
missing values are not imputed.

Environment variables:

``MAX_TREES`` (1,000), ``LEARNING_RATE`` (0.02), ``MAX_DEPTH`` (5)
    Maximum number of trees, shrinkage of each, and maximum depth.
``COLSAMPLE`` (0.1 from 200 features on, else 0.5)
    The share of the features available to each tree.
``MIN_CHILD_WEIGHT`` (10)
    Minimum sum of p (1 - p) in a leaf: about a quarter of its rows, as predictions are close to one half.
``EARLY_STOPPING`` (50), ``MIN_TREES`` (20)
    Stop after so many trees without improvement; keep at least so many trees, since on a very weak signal the first
    tree may be the best, and almost constant predictions are useless.
``EMBARGO_ERAS`` (8)
    Eras left out between the training and the held-out eras, as the targets of neighbouring eras overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import batches, eras, targets
from numerai_contract.task import TrainingSummary

from ._boosting import BoostingParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.task import Task

_HELD_OUT_SHARE = 0.2
_MANY_FEATURES = 200
# enough for five-level features; a byte holds an index of either
_FEW_BINS, _BINS = 8, 256


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    features = len(task.training.feature_names)
    params = BoostingParams.read(
        task.parameters, learning_rate=0.02, max_depth=5, colsample=0.1 if features >= _MANY_FEATURES else 0.5
    )
    embargo = task.parameters.get_int("EMBARGO_ERAS", 8, at_least=0, at_most=1_000)
    training, tournament = task.training, task.tournament

    rows, labels = targets.values(training)
    split = eras.hold_out_last(
        training.era_numbers[rows], share=_HELD_OUT_SHARE, embargo=embargo, seed=task.parameters.seed
    )
    task.note(
        f"{split.description}: {split.training.sum():,} training rows, {split.held_out.sum():,} for early stopping"
    )
    with task.progress.step("reading the features into histograms"):
        params.settings["max_bin"] = _bins(training)
        histograms = params.histograms(_blocks(training, eras.within(rows, split.training)), labels[split.training])
        held_out = params.histograms(
            _blocks(training, eras.within(rows, split.held_out)), labels[split.held_out], bins_of=histograms
        )

    model = params.train(task, histograms, held_out)
    count = len(tournament)
    with task.progress.step(f"predicting {count:,} rows"):
        probabilities = batches.predict(tournament.batches(), count, model.predict, report=task.progress.update)
    task.write_predictions(
        probabilities,
        TrainingSummary(
            training_rows=int(split.training.sum()),
            held_out_rows=int(split.held_out.sum()),
            chosen={**model.chosen, "embargo_eras": split.embargo},
            libraries=("xgboost-cpu",),
        ),
    )


def _bins(table: Table) -> int:
    """Return the number of bins of a feature, determined by the first rows; too few only cost precision."""
    if table.feature_dtype != np.int8:
        return _BINS
    _, block = next(table.batches())
    return _FEW_BINS if np.ptp(block.astype(np.int16)) < _FEW_BINS else _BINS


def _blocks(table: Table, rows: NDArray[np.bool_]) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (block for _, block in table.batches(rows))
