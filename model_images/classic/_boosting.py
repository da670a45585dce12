"""Gradient boosting by XGBoost on rows that are read a block at a time.

A missing value is a value below all others, and trees may split it from them. XGBoost's own treatment takes 5.8 bytes a
value instead of 2.1 as soon as one value is missing, and a third more time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract.imports import hidden_modules
from numerai_contract.tables import MISSING

# the scikit-learn interface is not used here, and its import takes most of the time before training
with hidden_modules("sklearn"):
    import xgboost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.plans import Sizes
    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

    from ._era_corr import EraCorr
    from ._presets import TreeSettings

_FILE = "trees.ubj"
_REPORTED = ("objective", "learning_rate", "max_depth", "max_bin", "colsample_bytree", "min_child_weight")


# measured at the size of a v5.3 season, in bytes: a value in histograms (a byte by row, a byte by feature), and a row's
# label, gradients and position in the trees
_BYTES_PER_VALUE, _BYTES_PER_ROW = 2.14, 60
# Python with its libraries, and batches of features on their way into histograms, in MiB
_BASE_MEMORY = 300


def memory(sizes: Sizes, rows: int, columns: int) -> float:
    """Return the peak memory of trees on rows in histograms, with the open tables, in MiB."""
    return _BASE_MEMORY + sizes.open_tables + rows * (_BYTES_PER_VALUE * columns + _BYTES_PER_ROW) / 2**20


class BoostingParams(NamedTuple):
    """The parameters of the training.

    Attributes
    ----------
    settings : dict
        Parameters of XGBoost; the caller sets `max_bin` before `histograms`.
    max_trees, min_trees : int
        Maximum number of trees, and the number that is kept even when fewer were better.
    early_stopping : int
        Number of trees without improvement after which the training ends.
    """

    settings: dict[str, Any]
    max_trees: int
    min_trees: int
    early_stopping: int

    @classmethod
    def read(cls, parameters: Parameters, *, learning_rate: float, max_depth: int, colsample: float) -> BoostingParams:
        """Read MAX_TREES, LEARNING_RATE, MAX_DEPTH, COLSAMPLE, MIN_CHILD_WEIGHT, EARLY_STOPPING and MIN_TREES.

        Parameters
        ----------
        parameters
            The parameters of the operation, with its seed and threads.
        learning_rate, max_depth, colsample
            Their defaults.
        """
        settings = {
            # the target's value as a probability, for targets of 0 and 1 and graded ones
            "objective": "reg:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "learning_rate": parameters.get_float("LEARNING_RATE", learning_rate, at_least=1e-4, at_most=1),
            "max_depth": parameters.get_int("MAX_DEPTH", max_depth, at_least=1, at_most=16),
            "colsample_bytree": parameters.get_float("COLSAMPLE", colsample, at_least=1e-3, at_most=1),
            "min_child_weight": parameters.get_float("MIN_CHILD_WEIGHT", 10, at_least=0, at_most=1e6),
            "seed": parameters.seed,
            "nthread": parameters.threads,
        }
        return cls(
            settings,
            max_trees=parameters.get_int("MAX_TREES", 1_000, at_least=1, at_most=100_000),
            min_trees=parameters.get_int("MIN_TREES", 20, at_least=1, at_most=100_000),
            early_stopping=parameters.get_int("EARLY_STOPPING", 50, at_least=1, at_most=100_000),
        )

    @classmethod
    def of(cls, settings: TreeSettings, parameters: Parameters, bins: int) -> BoostingParams:
        """Translate settings that XGBoost and LightGBM share."""
        params = {
            "objective": "reg:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "learning_rate": settings.learning_rate,
            "max_depth": settings.max_depth,
            "max_leaves": settings.max_leaves,
            "max_bin": bins,
            "colsample_bytree": settings.colsample,
            # the sum of p (1 - p), where p is close to one half
            "min_child_weight": settings.min_leaf_rows / 4,
            "seed": parameters.seed,
            "nthread": parameters.threads,
        }
        return cls(params, settings.trees, settings.min_trees, settings.early_stopping)

    def histograms(
        self,
        blocks: Callable[[], Iterator[NDArray[Any]]],
        labels: NDArray[Any],
        *,
        bins_of: xgboost.QuantileDMatrix | None = None,
        keep: bool = False,
    ) -> xgboost.QuantileDMatrix:
        """Read rows into histograms, so that their features are never in memory all at once.

        Parameters
        ----------
        blocks
            Returns an iterator over the rows: blocks of shape (rows, features), NaN or `MISSING` where a value is
            missing. It is called for each of XGBoost's passes, and must yield the same blocks each time.
        labels
            In [0, 1], shape (rows of all blocks,).
        bins_of
            Histograms whose bins are used: those of the training rows, for held-out rows.
        keep
            Whether to keep the blocks of the first pass in memory for the others.
        """
        # histograms and trees must have the same bins
        bins = {name: self.settings[name] for name in ("max_bin", "nthread")}
        passes = _Passes(blocks, labels, keep=keep)
        try:
            return xgboost.QuantileDMatrix(passes, ref=bins_of, **bins)
        finally:
            passes.close()

    def train(
        self,
        task: Task,
        training: xgboost.QuantileDMatrix,
        held_out: xgboost.QuantileDMatrix,
        judge: EraCorr | None = None,
    ) -> BoostedModel:
        """Grow trees on the training rows until the score on the held-out rows is no longer better.

        Parameters
        ----------
        task
            For its log and notes.
        training, held_out
            From `histograms`.
        judge
            The score, by default the logloss.
        """
        score = "logloss" if judge is None else "corr"
        with task.progress.step("growing trees"):
            booster = xgboost.train(
                self.settings | ({} if judge is None else {"disable_default_eval_metric": True}),
                training,
                num_boost_round=self.max_trees,
                evals=[(held_out, "held_out")],
                custom_metric=None if judge is None else lambda predictions, _: (score, judge(predictions)),
                maximize=judge is not None,
                early_stopping_rounds=self.early_stopping,
                verbose_eval=False,
                callbacks=[_ProgressCallback(task.progress, self.max_trees)],
            )
        best = booster.best_iteration + 1
        # on a very weak signal the first tree may be the best, and its predictions are almost constant
        trees = max(best, min(self.min_trees, booster.num_boosted_rounds()))
        kept = "" if trees == best else f"; keeping {trees:,} trees (MIN_TREES)"
        task.note(f"best held-out {score} {booster.best_score:.5f} at tree {best:,}{kept}")
        chosen = {
            **{name: self.settings[name] for name in _REPORTED},
            "trees": trees,
            "best_trees": best,
            f"best_held_out_{score}": float(booster.best_score),
        }
        return BoostedModel(booster, trees, chosen)

    def train_fixed(self, task: Task, training: xgboost.QuantileDMatrix, *, trees: int) -> BoostedModel:
        """Grow a given number of trees on all rows."""
        with task.progress.step(f"growing {trees:,} trees"):
            booster = xgboost.train(
                self.settings,
                training,
                num_boost_round=trees,
                verbose_eval=False,
                callbacks=[_ProgressCallback(task.progress, trees)],
            )
        chosen = {**{name: self.settings[name] for name in _REPORTED}, "trees": trees}
        return BoostedModel(booster, trees, chosen)


class BoostedModel(NamedTuple):
    """The trained model.

    Attributes
    ----------
    booster : xgboost.Booster
        It has a few more trees than are used.
    trees : int
        Number of trees in use.
    chosen : dict
        Parameters and results, for the report.
    """

    booster: xgboost.Booster
    trees: int
    chosen: dict[str, Any]

    def predict(self, block: NDArray[Any]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, features), NaN or `MISSING` where a value is missing; in (0, 1), shape (rows,)."""
        predictions = self.booster.inplace_predict(without_nan(block), iteration_range=(0, self.trees))
        return np.asarray(predictions, dtype=np.float64)

    def save(self, directory: Path) -> None:
        """Save the trees in use, in XGBoost's binary JSON."""
        self.booster[: self.trees].save_model(directory / _FILE)

    @classmethod
    def load(cls, directory: Path, threads: int) -> BoostedModel:
        """Load what `save` has saved."""
        booster = xgboost.Booster({"nthread": threads}, model_file=directory / _FILE)
        return cls(booster, booster.num_boosted_rounds(), {})


class _Passes(xgboost.DataIter):  # type: ignore[misc]  # XGBoost's class is untyped here
    """Passes blocks of rows to XGBoost, which iterates over them several times."""

    def __init__(self, blocks: Callable[[], Iterator[NDArray[Any]]], labels: NDArray[Any], *, keep: bool) -> None:
        self._blocks, self._labels, self._keep = blocks, labels, keep
        self._kept: list[NDArray[Any]] = []
        self._is_kept = False
        self.reset()
        super().__init__()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Pass on the next block; return whether there was one."""
        block = next(self._pass, None)
        if block is None:
            self._is_kept = self._keep
            return False
        if self._keep and not self._is_kept:
            self._kept.append(block)
        input_data(data=without_nan(block), label=self._labels[self._position : self._position + len(block)])
        self._position += len(block)
        return True

    def reset(self) -> None:
        """Restart at the first row."""
        if not self._is_kept:
            self._kept.clear()
        self._pass = iter(self._kept) if self._is_kept else self._blocks()
        self._position = 0

    def close(self) -> None:
        """Release the kept blocks: XGBoost's references to an iterator are cyclic, and released later."""
        self._pass = iter(())
        self._kept.clear()


class _ProgressCallback(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # as above
    """Logs the progress of the training."""

    def __init__(self, progress: Progress, max_trees: int) -> None:
        self._progress, self._max_trees = progress, max_trees
        super().__init__()

    def after_iteration(self, _model: object, epoch: int, evals_log: dict[str, dict[str, list[float]]]) -> bool:
        """Log the number of trees; never stop the training."""
        done = epoch + 1
        position = f"tree {done:,} of {self._max_trees:,}"
        for score, values in evals_log.get("held_out", {}).items():
            position = f"tree {done:,} of at most {self._max_trees:,}, held-out {score} {values[-1]:.5f}"
        self._progress.update(done / self._max_trees, position)
        return False


def without_nan(block: NDArray[Any]) -> NDArray[Any]:
    """Replace NaN by `MISSING`."""
    if block.dtype == np.int8:
        return block
    is_missing = np.isnan(block)
    return np.where(is_missing, block.dtype.type(MISSING), block) if is_missing.any() else block
