"""Gradient boosted trees by XGBoost, with early stopping on the latest eras.

It learns the target's value as a probability (``reg:logistic``), so the same model takes a target of 0 and 1 and a
graded one. Features are streamed from the file into histograms, so that neither table is ever in memory at once. A
missing value is a value below all others.

Histograms of 6.8 million rows take 14 MiB a feature, and a tree takes the time of all features, even if it may use only
some. Where they do not fit MEMORY_LIMIT or the time, the features with the largest correlation with the target are
used: of 780, about 320 in 6 GiB.

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

The last fifth of the eras is held out for early stopping, after the run's EMBARGO. The final fit grows as many trees as
the first has kept, on all rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from numerai_contract import eras, targets
from numerai_contract.fitting import Fitted
from numerai_contract.plans import Plan, largest
from numerai_contract.tables import MISSING
from numerai_contract.task import TrainingSummary

from ._boosting import BoostedModel, BoostingParams, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Sizes
    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

_HELD_OUT_SHARE = 0.2
_MIN_FEATURES = 10
# rows times features of the final fit: a tree on so many takes 20 seconds of one core
_MAX_VALUES = 6_000_000_000
_MANY_FEATURES = 200
# enough for five-level features; a byte holds an index of either
_FEW_BINS, _BINS = 8, 256


class XGBoostModel:
    """Trees on the features of a table."""

    def __init__(self, boosted: BoostedModel) -> None:
        self._boosted = boosted

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return task.predict_rows(table, table.batches(as_int8=table.holds_int8), self._boosted.predict)

    def save(self, directory: Path) -> None:
        """Save the trees in XGBoost's format."""
        self._boosted.save(directory)


def plan(parameters: Parameters, sizes: Sizes) -> Plan:
    """Plan as many features as memory and time allow, with all rows."""
    rows = sizes.rows
    timely = max(_MIN_FEATURES, _MAX_VALUES // max(rows, 1))
    features = largest(
        min(sizes.features, timely), _MIN_FEATURES, lambda count: memory(sizes, rows, count), parameters.memory_limit
    )
    return Plan(rows, features, memory(sizes, rows, features))


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:
    """Fit on the training table, with early stopping; the final fit has the number of trees of the first."""
    rows, labels = targets.values(task.training)
    planned = plan(task.parameters, task.sizes)
    if earlier is not None:
        params = _params(task)
        with task.progress.step("reading the features into histograms"):
            histograms = params.histograms(_blocks(task.training, rows), labels, keep=_keeps(task, planned))
        boosted = params.train_fixed(task, histograms, trees=earlier.choice)
        summary = TrainingSummary(training_rows=len(labels), chosen=boosted.chosen)
        return Fitted(XGBoostModel(boosted), summary, boosted.trees)
    split = eras.hold_out_last(
        task.training.era_numbers[rows],
        share=_HELD_OUT_SHARE,
        embargo=task.parameters.embargo,
        seed=task.parameters.seed,
    )
    task.note(
        f"{split.description}: {split.training.sum():,} training rows, {split.held_out.sum():,} for early stopping"
    )
    learned, judged = eras.within(rows, split.training), eras.within(rows, split.held_out)
    task.follow(planned, learned)
    params, training, keep = _params(task), task.training, _keeps(task, planned)
    with task.progress.step("reading the features into histograms"):
        histograms = params.histograms(_blocks(training, learned), labels[split.training], keep=keep)
        held_out = params.histograms(_blocks(training, judged), labels[split.held_out], bins_of=histograms, keep=keep)
    boosted = params.train(task, histograms, held_out)
    summary = TrainingSummary(
        training_rows=int(split.training.sum()),
        held_out_rows=int(split.held_out.sum()),
        chosen={**boosted.chosen, "embargo_eras": split.embargo},
        libraries=("xgboost-cpu",),
    )
    return Fitted(XGBoostModel(boosted), summary, boosted.trees)


def load(task: Task, directory: Path) -> XGBoostModel:
    """Load a saved model."""
    return XGBoostModel(BoostedModel.load(directory, task.parameters.threads))


def _params(task: Task) -> BoostingParams:
    colsample = 0.1 if len(task.training.feature_names) >= _MANY_FEATURES else 0.5
    params = BoostingParams.read(task.parameters, learning_rate=0.02, max_depth=5, colsample=colsample)
    params.settings["max_bin"] = _bins(task.training)
    return params


def _keeps(task: Task, planned: Plan) -> bool:
    """Return whether the features, a byte a value, fit the memory beside the histograms."""
    limit = task.parameters.memory_limit
    needed = planned.memory + planned.rows * planned.features / 2**20
    return task.training.holds_int8 and (limit is None or needed <= limit)


def _bins(table: TableView) -> int:
    """Return the number of bins of a feature, determined by the first rows; too few only cost precision."""
    if not table.holds_int8:
        return _BINS
    _, block = next(table.batches(as_int8=True))
    known = block[block != MISSING].astype(np.int16)
    return _FEW_BINS if not known.size or np.ptp(known) < _FEW_BINS else _BINS


def _blocks(table: TableView, rows: NDArray[np.bool_]) -> Callable[[], Iterator[NDArray[Any]]]:
    return lambda: (block for _, block in table.batches(rows, as_int8=table.holds_int8))
