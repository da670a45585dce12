"""A model of boosted trees on the features of a table, by XGBoost or LightGBM: plan, fits, and saved model.

Both learn the target's value, for targets of 0 and 1 and graded ones. Features are streamed from the file into
histograms, so that neither table is ever in memory at once. A missing value is a value below all others.

All trees are grown on all rows of the table, in a fixed number. With early stopping the last fifth of the eras is held
out first, after the run's EMBARGO; the trees that were best by mean CORR per era are then grown again on all rows.
The final fit grows as many trees as the first.

Where the features do not fit MEMORY_LIMIT or the time, those with the largest correlation with the target are used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from numerai_contract import eras, targets
from numerai_contract.fitting import Fitted
from numerai_contract.plans import Plan, largest
from numerai_contract.tables import MISSING
from numerai_contract.task import TrainingSummary

from ._boosting import memory
from ._era_corr import EraCorr
from ._presets import TreeSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Sizes
    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

    Blocks = Callable[[], Iterator[NDArray[Any]]]

_HELD_OUT_SHARE = 0.2
_MIN_FEATURES = 10
# enough for five-level features; a byte holds an index of either
_FEW_BINS, _BINS = 8, 256
# trees between two scores of the held-out rows: a score of half a million rows takes a quarter of a second
_TREES_PER_SCORE = 10


class Trees(Protocol):
    """Trees of a library.

    Attributes
    ----------
    trees : int
        Number of trees in use.
    chosen : dict
        Settings and results, for the report.
    """

    @property
    def trees(self) -> int: ...

    @property
    def chosen(self) -> dict[str, Any]: ...

    def predict(self, block: NDArray[Any]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, features), NaN or `MISSING` where a value is missing; in [0, 1], shape (rows,)."""

    def save(self, directory: Path) -> None:
        """Save the trees in use in the library's format."""


class Booster(Protocol):
    """Grows trees with a library; see `_boosting.BoostingParams` for the methods."""

    def histograms(self, blocks: Blocks, labels: NDArray[Any], *, bins_of: Any = None, keep: bool = False) -> Any: ...

    def train(self, task: Task, training: Any, held_out: Any, judge: EraCorr | None = None) -> Trees: ...

    def train_fixed(self, task: Task, training: Any, *, trees: int) -> Trees: ...


class TreeModel:
    """Trees on the features of a table."""

    def __init__(self, boosted: Trees) -> None:
        self._boosted = boosted

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table; shape (rows,)."""
        return task.predict_rows(table, table.batches(as_int8=table.holds_int8), self._boosted.predict)

    def save(self, directory: Path) -> None:
        """Save the trees in the library's format."""
        self._boosted.save(directory)


def plan(parameters: Parameters, sizes: Sizes, *, max_values: int) -> Plan:
    """Plan as many features as memory and time allow, with all rows.

    Parameters
    ----------
    parameters, sizes
        Of the operation.
    max_values
        Rows times features of the final fit for which a preset of `small` ends in time.
    """
    rows = sizes.rows
    timely = max(_MIN_FEATURES, max_values // max(rows, 1))
    features = largest(
        min(sizes.features, timely), _MIN_FEATURES, lambda count: memory(sizes, rows, count), parameters.memory_limit
    )
    return Plan(rows, features, memory(sizes, rows, features))


def fit(
    task: Task,
    earlier: Fitted | None,
    planned: Plan,
    booster: Callable[[TreeSettings, Parameters, int], Booster],
    library: str,
) -> Fitted:
    """Fit on all rows of the training table.

    Parameters
    ----------
    task, earlier
        See `numerai_contract.fitting`.
    planned
        Of this module's `plan`.
    booster
        Makes the library's booster from settings, parameters and a number of bins.
    library
        The library's distribution.
    """
    rows, labels = targets.values(task.training)
    settings = TreeSettings.read(task.parameters, task.sizes.rows)
    chosen: dict[str, Any] = {"preset": task.parameters.get_str("PRESET", "small")}
    held_out_rows = 0
    if earlier is not None:
        trees = earlier.choice
    elif settings.early_stopping:
        found, held_out_rows, embargo = _stop_early(task, planned, booster, settings, rows, labels)
        trees = found["trees"]
        chosen |= {name: found[name] for name in ("best_trees", "best_held_out_corr")} | {"embargo_weeks": embargo}
    else:
        task.follow(planned, rows)
        trees = settings.trees
    maker = booster(settings, task.parameters, _bins(task.training))
    with task.progress.step("reading the features into histograms"):
        histograms = maker.histograms(_blocks(task.training, rows), labels, keep=_keeps(task, planned))
    boosted = maker.train_fixed(task, histograms, trees=trees)
    summary = TrainingSummary(
        training_rows=len(labels),
        held_out_rows=held_out_rows,
        chosen={**boosted.chosen, **settings.reported(), **chosen},
        libraries=(library,),
    )
    return Fitted(TreeModel(boosted), summary, trees)


def _stop_early(
    task: Task,
    planned: Plan,
    booster: Callable[[TreeSettings, Parameters, int], Booster],
    settings: TreeSettings,
    rows: NDArray[np.bool_],
    labels: NDArray[np.float32],
) -> tuple[dict[str, Any], int, int]:
    """Return what was chosen with the last eras held out, the number of their rows, and the embargo in weeks."""
    era_numbers = task.training.era_numbers[rows]
    split = eras.hold_out_last(
        era_numbers, share=_HELD_OUT_SHARE, embargo=task.parameters.embargo, seed=task.parameters.seed
    )
    task.note(
        f"{split.description}: {split.training.sum():,} training rows, {split.held_out.sum():,} for early stopping"
    )
    learned, judged = eras.within(rows, split.training), eras.within(rows, split.held_out)
    task.follow(planned, learned)
    maker, training = booster(settings, task.parameters, _bins(task.training)), task.training
    keep = _keeps(task, planned)
    with task.progress.step("reading the features into histograms"):
        histograms = maker.histograms(_blocks(training, learned), labels[split.training], keep=keep)
        held_out = maker.histograms(_blocks(training, judged), labels[split.held_out], bins_of=histograms, keep=keep)
    judge = EraCorr(labels[split.held_out], era_numbers[split.held_out], every=_TREES_PER_SCORE)
    chosen = maker.train(task, histograms, held_out, judge).chosen
    return chosen, int(split.held_out.sum()), split.embargo


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


def _blocks(table: TableView, rows: NDArray[np.bool_]) -> Blocks:
    return lambda: (block for _, block in table.batches(rows, as_int8=table.holds_int8))
