"""Growing trees by XGBoost from rows that come a block at a time, until a held-out part no longer gains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract.imports import absent

# its interface for scikit-learn, which takes most of the time until a tree grows, is not used here
with absent("sklearn"):
    import xgboost

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

_REPORTED = ("objective", "learning_rate", "max_depth", "max_bin", "colsample_bytree", "min_child_weight")


class Growth(NamedTuple):
    """How trees are grown.

    Attributes
    ----------
    settings : dict
        In XGBoost's words; `max_bin` is for the caller to set before `histograms`.
    max_trees, min_trees : int
        How many trees at most, and how many are kept even when fewer were better.
    patience : int
        How many trees without gain end it.
    """

    settings: dict[str, Any]
    max_trees: int
    min_trees: int
    patience: int

    @classmethod
    def read(cls, parameters: Parameters, *, learning_rate: float, max_depth: int, colsample: float) -> Growth:
        """Read MAX_TREES, LEARNING_RATE, MAX_DEPTH, COLSAMPLE, MIN_CHILD_WEIGHT, EARLY_STOPPING and MIN_TREES.

        Parameters
        ----------
        parameters
            Where they, the seed and the threads are read from.
        learning_rate, max_depth, colsample
            What these are unless they are set.
        """
        settings = {
            # the target's value as a probability, so that targets of 0 and 1 and graded ones are learned alike
            "objective": "reg:logistic",
            "eval_metric": "logloss",
            "tree_method": "hist",
            "learning_rate": parameters.number("LEARNING_RATE", learning_rate, at_least=1e-4, at_most=1),
            "max_depth": parameters.whole("MAX_DEPTH", max_depth, at_least=1, at_most=16),
            "colsample_bytree": parameters.number("COLSAMPLE", colsample, at_least=1e-3, at_most=1),
            "min_child_weight": parameters.number("MIN_CHILD_WEIGHT", 10, at_least=0, at_most=1e6),
            "seed": parameters.seed,
            "nthread": parameters.threads,
        }
        return cls(
            settings,
            max_trees=parameters.whole("MAX_TREES", 1_000, at_least=1, at_most=100_000),
            min_trees=parameters.whole("MIN_TREES", 20, at_least=1, at_most=100_000),
            patience=parameters.whole("EARLY_STOPPING", 50, at_least=1, at_most=100_000),
        )

    def histograms(
        self,
        blocks: Callable[[], Iterator[NDArray[Any]]],
        labels: NDArray[Any],
        *,
        bins_of: xgboost.QuantileDMatrix | None = None,
    ) -> xgboost.QuantileDMatrix:
        """Read rows into histograms, so that their features are never in memory as a whole.

        Parameters
        ----------
        blocks
            Begins a pass over the rows: blocks of shape (rows, features), NaN where a value is missing. It is called
            several times and must yield the same each time.
        labels
            In [0, 1], shape (rows of all blocks,).
        bins_of
            Histograms to cut the features like: those of the training rows, when these are held-out ones.
        """
        # the histograms and the trees grown from them must agree on the bins
        bins = {name: self.settings[name] for name in ("max_bin", "nthread")}
        return xgboost.QuantileDMatrix(_Passes(blocks, labels), ref=bins_of, **bins)

    def grow(self, task: Task, learning: xgboost.QuantileDMatrix, held_out: xgboost.QuantileDMatrix) -> Grown:
        """Grow trees on one part until the logloss on the other no longer falls."""
        with task.progress.step("growing trees"):
            booster = xgboost.train(
                self.settings,
                learning,
                num_boost_round=self.max_trees,
                evals=[(held_out, "held_out")],
                early_stopping_rounds=self.patience,
                verbose_eval=False,
                callbacks=[_Follow(task.progress, self.max_trees)],
            )
        best = booster.best_iteration + 1
        # on a signal close to nothing the very first tree may be the best, and would say next to nothing
        trees = max(best, min(self.min_trees, booster.num_boosted_rounds()))
        kept = "" if trees == best else f"; keeping {trees:,} trees (MIN_TREES)"
        task.note(f"best held-out logloss {booster.best_score:.5f} at tree {best:,}{kept}")
        chosen = {
            **{name: self.settings[name] for name in _REPORTED},
            "trees": trees,
            "best_trees": best,
            "best_held_out_logloss": float(booster.best_score),
        }
        return Grown(booster, trees, chosen)


class Grown(NamedTuple):
    """The trees.

    Attributes
    ----------
    booster : xgboost.Booster
        With a few trees more than are used.
    trees : int
        How many are used.
    chosen : dict
        Settings and outcome, for the report.
    """

    booster: xgboost.Booster
    trees: int
    chosen: dict[str, Any]

    def predict(self, block: NDArray[Any]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, features), NaN where a value is missing; in (0, 1), shape (rows,)."""
        predictions = self.booster.inplace_predict(block, iteration_range=(0, self.trees))
        return np.asarray(predictions, dtype=np.float64)


class _Passes(xgboost.DataIter):  # type: ignore[misc]  # XGBoost's own class is untyped here
    """Hands blocks of rows to XGBoost, as often as it asks for another pass."""

    def __init__(self, blocks: Callable[[], Iterator[NDArray[Any]]], labels: NDArray[Any]) -> None:
        self._blocks, self._labels = blocks, labels
        self.reset()
        super().__init__()

    def next(self, input_data: Callable[..., None]) -> bool:
        """Hand over the next block; say whether there was one."""
        block = next(self._pass, None)
        if block is None:
            return False
        input_data(data=block, label=self._labels[self._handed : self._handed + len(block)])
        self._handed += len(block)
        return True

    def reset(self) -> None:
        """Begin again with the first row."""
        self._pass = self._blocks()
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
