"""Gradient boosting by XGBoost on rows that are read a block at a time, with early stopping on a held-out part."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract.imports import hidden_modules

# the scikit-learn interface is not used here, and its import takes most of the time before training
with hidden_modules("sklearn"):
    import xgboost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

_FILE = "trees.ubj"
_REPORTED = ("objective", "learning_rate", "max_depth", "max_bin", "colsample_bytree", "min_child_weight")


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

    def histograms(
        self,
        blocks: Callable[[], Iterator[NDArray[Any]]],
        labels: NDArray[Any],
        *,
        bins_of: xgboost.QuantileDMatrix | None = None,
    ) -> xgboost.QuantileDMatrix:
        """Read rows into histograms, so that their features are never in memory all at once.

        Parameters
        ----------
        blocks
            Returns an iterator over the rows: blocks of shape (rows, features), NaN where a value is missing. It is
            called several times and must yield the same blocks each time.
        labels
            In [0, 1], shape (rows of all blocks,).
        bins_of
            Histograms whose bins are used: those of the training rows, for held-out rows.
        """
        # histograms and trees must have the same bins
        bins = {name: self.settings[name] for name in ("max_bin", "nthread")}
        return xgboost.QuantileDMatrix(_Passes(blocks, labels), ref=bins_of, **bins)

    def train(self, task: Task, training: xgboost.QuantileDMatrix, held_out: xgboost.QuantileDMatrix) -> BoostedModel:
        """Grow trees on the training rows until the logloss on the held-out rows no longer falls."""
        with task.progress.step("growing trees"):
            booster = xgboost.train(
                self.settings,
                training,
                num_boost_round=self.max_trees,
                evals=[(held_out, "held_out")],
                early_stopping_rounds=self.early_stopping,
                verbose_eval=False,
                callbacks=[_ProgressCallback(task.progress, self.max_trees)],
            )
        best = booster.best_iteration + 1
        # on a very weak signal the first tree may be the best, and its predictions are almost constant
        trees = max(best, min(self.min_trees, booster.num_boosted_rounds()))
        kept = "" if trees == best else f"; keeping {trees:,} trees (MIN_TREES)"
        task.note(f"best held-out logloss {booster.best_score:.5f} at tree {best:,}{kept}")
        chosen = {
            **{name: self.settings[name] for name in _REPORTED},
            "trees": trees,
            "best_trees": best,
            "best_held_out_logloss": float(booster.best_score),
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
        """Predict rows, shape (rows, features), NaN where a value is missing; in (0, 1), shape (rows,)."""
        predictions = self.booster.inplace_predict(block, iteration_range=(0, self.trees))
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

    def __init__(self, blocks: Callable[[], Iterator[NDArray[Any]]], labels: NDArray[Any]) -> None:
        self._blocks, self._labels = blocks, labels
        self.reset()
        super().__init__()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Pass on the next block; return whether there was one."""
        block = next(self._pass, None)
        if block is None:
            return False
        input_data(data=block, label=self._labels[self._position : self._position + len(block)])
        self._position += len(block)
        return True

    def reset(self) -> None:
        """Restart at the first row."""
        self._pass = self._blocks()
        self._position = 0


class _ProgressCallback(xgboost.callback.TrainingCallback):  # type: ignore[misc]  # as above
    """Logs the progress of the training."""

    def __init__(self, progress: Progress, max_trees: int) -> None:
        self._progress, self._max_trees = progress, max_trees
        super().__init__()

    def after_iteration(self, _model: object, epoch: int, evals_log: dict[str, dict[str, list[float]]]) -> bool:
        """Log the number of trees; never stop the training."""
        done = epoch + 1
        position = f"tree {done:,} of {self._max_trees:,}"
        if "held_out" in evals_log:
            loss = evals_log["held_out"]["logloss"][-1]
            position = f"tree {done:,} of at most {self._max_trees:,}, held-out logloss {loss:.5f}"
        self._progress.update(done / self._max_trees, position)
        return False
