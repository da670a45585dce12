"""Gradient boosted trees by XGBoost, stopped when the latest eras no longer gain from another tree.

It learns the target's value as a probability (``reg:logistic``), so the same model takes a target of 0 and 1 and one
with grades between. Features are streamed from the file into histograms, so that neither table is ever in memory as a
whole, and missing values are learned from as they are.

Parameters of its own:

``MAX_TREES`` (1,000), ``LEARNING_RATE`` (0.02), ``MAX_DEPTH`` (5)
    How many trees at most, how far each moves the prediction, and how many questions it asks.
``COLSAMPLE`` (0.1 from 200 features on, else 0.5)
    The share of the features each tree may look at.
``MIN_CHILD_WEIGHT`` (10)
    The least sum of p (1 - p) in a leaf: four times as many rows, as predictions are close to one half.
``EARLY_STOPPING`` (50), ``MIN_TREES`` (20)
    Stop after so many trees without gain; keep at least so many trees, since on a signal close to nothing the very
    first may be the best, and a prediction that says nothing is of no use to anyone.
``EMBARGO_ERAS`` (8)
    Eras left out between the training and the held-out eras, as the targets of neighbours overlap.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import eras, targets
from numerai_contract.task import Learned

from ._boosting import Growth

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.tables import Table
    from numerai_contract.task import Task

_HELD_OUT_SHARE = 0.2
_MANY_FEATURES = 200
# five-level features need no more than this, and a byte holds either
_FEW_BINS, _BINS = 8, 256


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    features = len(task.training.feature_names)
    growth = Growth.read(
        task.parameters, learning_rate=0.02, max_depth=5, colsample=0.1 if features >= _MANY_FEATURES else 0.5
    )
    embargo = task.parameters.whole("EMBARGO_ERAS", 8, at_least=0, at_most=1_000)
    training, tournament = task.training, task.tournament

    rows, labels = targets.values(training)
    split = eras.hold_out_last(
        training.era_numbers[rows], share=_HELD_OUT_SHARE, embargo=embargo, seed=task.parameters.seed
    )
    task.note(f"{split.description}: {split.training.sum():,} rows to learn from, {split.held_out.sum():,} to stop by")
    with task.progress.step("reading the features into histograms"):
        growth.settings["max_bin"] = _bins(training)
        learning = growth.histograms(_blocks(training, eras.within(rows, split.training)), labels[split.training])
        held_out = growth.histograms(
            _blocks(training, eras.within(rows, split.held_out)), labels[split.held_out], bins_of=learning
        )

    grown = growth.grow(task, learning, held_out)
    with task.progress.step(f"predicting {len(tournament):,} rows"):
        probabilities = np.empty(len(tournament))
        for positions, block in tournament.batches():
            probabilities[positions] = grown.predict(block)
            done = int(positions[-1]) + 1
            task.progress.update(done / len(tournament), f"row {done:,} of {len(tournament):,}")
    task.deliver(
        probabilities,
        Learned(
            training_rows=int(split.training.sum()),
            held_out_rows=int(split.held_out.sum()),
            chosen={**grown.chosen, "embargo_eras": split.embargo},
            libraries=("xgboost-cpu",),
        ),
    )


def _bins(table: Table) -> int:
    """Choose how many bins a feature is cut into, going by the first rows: too few would cost precision, no more."""
    if table.feature_dtype != np.int8:
        return _BINS
    _, block = next(table.batches())
    return _FEW_BINS if np.ptp(block.astype(np.int16)) < _FEW_BINS else _BINS


def _blocks(table: Table, rows: NDArray[np.bool_]) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (block for _, block in table.batches(rows))
