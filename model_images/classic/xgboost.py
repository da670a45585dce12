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
import xgboost

from numerai_contract import eras, targets
from numerai_contract.task import Learned

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress
    from numerai_contract.tables import Table
    from numerai_contract.task import Task

_HELD_OUT_SHARE = 0.2
_MANY_FEATURES = 200
# five-level features need no more than this, and a byte holds either
_FEW_BINS, _BINS = 8, 256


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    settings = _settings(task.parameters, features=len(task.training.feature_names))
    max_trees = task.parameters.whole("MAX_TREES", 1_000, at_least=1, at_most=100_000)
    min_trees = task.parameters.whole("MIN_TREES", 20, at_least=1, at_most=100_000)
    patience = task.parameters.whole("EARLY_STOPPING", 50, at_least=1, at_most=100_000)
    embargo = task.parameters.whole("EMBARGO_ERAS", 8, at_least=0, at_most=1_000)
    training, tournament = task.training, task.tournament

    rows, labels = targets.values(training)
    split = eras.hold_out_last(
        training.era_numbers[rows], share=_HELD_OUT_SHARE, embargo=embargo, seed=task.parameters.seed
    )
    task.note(f"{split.description}: {split.training.sum():,} rows to learn from, {split.held_out.sum():,} to stop by")
    with task.progress.step("reading the features into histograms"):
        # the histograms and the trees grown from them must agree on the bins
        settings["max_bin"] = _bins(training)
        bins = {name: settings[name] for name in ("max_bin", "nthread")}
        fitted = _Blocks(training, eras.within(rows, split.training), labels[split.training])
        learning = xgboost.QuantileDMatrix(fitted, **bins)
        judged = _Blocks(training, eras.within(rows, split.held_out), labels[split.held_out])
        held_out = xgboost.QuantileDMatrix(judged, ref=learning, **bins)

    with task.progress.step("growing trees"):
        booster = xgboost.train(
            settings,
            learning,
            num_boost_round=max_trees,
            evals=[(held_out, "held_out")],
            early_stopping_rounds=patience,
            verbose_eval=False,
            callbacks=[_Follow(task.progress, max_trees)],
        )
    best = booster.best_iteration + 1
    trees = max(best, min(min_trees, booster.num_boosted_rounds()))
    kept = "" if trees == best else f"; keeping {trees:,} trees (MIN_TREES)"
    task.note(f"best held-out logloss {booster.best_score:.5f} at tree {best:,}{kept}")

    with task.progress.step(f"predicting {len(tournament):,} rows"):
        probabilities = np.empty(len(tournament))
        for positions, block in tournament.batches():
            probabilities[positions] = booster.inplace_predict(block, iteration_range=(0, trees))
            done = int(positions[-1]) + 1
            task.progress.update(done / len(tournament), f"row {done:,} of {len(tournament):,}")
    task.deliver(
        probabilities,
        Learned(
            training_rows=int(split.training.sum()),
            held_out_rows=int(split.held_out.sum()),
            chosen={
                **{name: settings[name] for name in _REPORTED},
                "embargo_eras": split.embargo,
                "trees": trees,
                "best_trees": best,
                "best_held_out_logloss": float(booster.best_score),
            },
            libraries=("xgboost-cpu",),
        ),
    )


_REPORTED = ("objective", "learning_rate", "max_depth", "max_bin", "colsample_bytree", "min_child_weight")


def _settings(parameters: Parameters, *, features: int) -> dict[str, Any]:
    """Put the parameters into XGBoost's words."""
    return {
        "objective": "reg:logistic",
        "eval_metric": "logloss",
        "tree_method": "hist",
        "learning_rate": parameters.number("LEARNING_RATE", 0.02, at_least=1e-4, at_most=1),
        "max_depth": parameters.whole("MAX_DEPTH", 5, at_least=1, at_most=16),
        "colsample_bytree": parameters.number(
            "COLSAMPLE", 0.1 if features >= _MANY_FEATURES else 0.5, at_least=1e-3, at_most=1
        ),
        "min_child_weight": parameters.number("MIN_CHILD_WEIGHT", 10, at_least=0, at_most=1e6),
        "seed": parameters.seed,
        "nthread": parameters.threads,
    }


def _bins(table: Table) -> int:
    """Choose how many bins a feature is cut into, going by the first rows: too few would cost precision, no more."""
    if table.feature_dtype != np.int8:
        return _BINS
    _, block = next(table.batches())
    return _FEW_BINS if np.ptp(block.astype(np.int16)) < _FEW_BINS else _BINS


class _Blocks(xgboost.DataIter):  # type: ignore[misc]  # XGBoost's own class is untyped here
    """Hands rows of a table to XGBoost a batch at a time, as often as it asks for another pass."""

    def __init__(self, table: Table, rows: NDArray[np.bool_], labels: NDArray[Any]) -> None:
        self._table, self._rows, self._labels = table, rows, labels
        self.reset()
        super().__init__()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next batch; say whether there was one."""
        positions, block = next(self._batches, (None, None))
        if positions is None:
            return False
        input_data(data=block, label=self._labels[self._handed : self._handed + len(positions)])
        self._handed += len(positions)
        return True

    def reset(self) -> None:
        """Begin again with the first row."""
        self._batches = self._table.batches(self._rows)
        self._handed = 0


class _Follow(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # as above
    """Says how far the training is."""

    def __init__(self, progress: Progress, max_trees: int) -> None:
        self._progress, self._max_trees = progress, max_trees
        super().__init__()

    def after_iteration(self, _model: object, epoch: int, evals_log: dict[str, dict[str, list[float]]]) -> bool:
        """Report a tree; never stop."""
        loss = evals_log["held_out"]["logloss"][-1]
        done = epoch + 1
        self._progress.update(
            done / self._max_trees, f"tree {done:,} of at most {self._max_trees:,}, held-out logloss {loss:.5f}"
        )
        return False
