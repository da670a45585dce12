"""Gradient boosting by LightGBM on rows that are read a block at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract.imports import hidden_modules

from ._boosting import without_nan

# the interface of scikit-learn is not used here, and its import takes most of the time before training
with hidden_modules("sklearn", "pandas"):
    import lightgbm

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.parameters import Parameters
    from numerai_contract.progress import Progress
    from numerai_contract.task import Task

    from ._era_corr import EraCorr
    from ._presets import TreeSettings

_FILE = "trees.txt"
# rows from which the bins of a feature are derived, eight bytes a value
_SAMPLED_ROWS = 20_000
# the library's seeds are signed
_MAX_SEED = 2**31 - 1


class LightGBMParams:
    """Grows trees with LightGBM.

    Parameters
    ----------
    settings
        That XGBoost and LightGBM share.
    parameters
        For the seed and the threads.
    bins
        Maximum number of bins of a feature.
    """

    def __init__(self, settings: TreeSettings, parameters: Parameters, bins: int) -> None:
        self._settings = settings
        self.params: dict[str, Any] = {
            "objective": "regression",
            "learning_rate": settings.learning_rate,
            "max_depth": settings.max_depth,
            "num_leaves": settings.max_leaves,
            "min_data_in_leaf": settings.min_leaf_rows,
            "feature_fraction": settings.colsample,
            "max_bin": bins,
            "bin_construct_sample_cnt": _SAMPLED_ROWS,
            "use_missing": False,
            "enable_bundle": False,
            # only this way a tree takes the time of the features that it may use
            "force_col_wise": True,
            "deterministic": True,
            "seed": parameters.seed % _MAX_SEED,
            "num_threads": parameters.threads,
            "verbosity": -1,
        }

    def histograms(
        self,
        blocks: Callable[[], Iterator[NDArray[Any]]],
        labels: NDArray[Any],
        *,
        bins_of: lightgbm.Dataset | None = None,
        keep: bool = False,  # noqa: ARG002 (LightGBM reads the rows only twice)
    ) -> lightgbm.Dataset:
        """Read rows into bins, so that their features are never in memory all at once.

        Parameters
        ----------
        blocks
            Returns an iterator over the rows: blocks of shape (rows, features), NaN or `MISSING` where a value is
            missing. It is called for each pass, and must yield the same blocks each time.
        labels
            In [0, 1], shape (rows of all blocks,).
        bins_of
            Rows whose bins are used: the training rows, for held-out rows.
        keep
            See `_boosting.BoostingParams.histograms`; not used.
        """
        rows = _Rows(blocks, len(labels))
        # its own parameters: the library adds others to them
        dataset = lightgbm.Dataset(rows, labels, reference=bins_of, params=dict(self.params))
        return dataset.construct()

    def train(
        self, task: Task, training: lightgbm.Dataset, held_out: lightgbm.Dataset, judge: EraCorr | None = None
    ) -> LightGBMTrees:
        """Grow trees on the training rows until the score on the held-out rows is no longer better."""
        settings = self._settings
        if judge is None:
            raise ValueError("without a judge there is no score to stop by")
        with task.progress.step("growing trees"):
            booster = lightgbm.train(
                {**self.params, "metric": "None"},
                training,
                num_boost_round=settings.trees,
                valid_sets=[held_out],
                valid_names=["held_out"],
                feval=lambda predictions, _: ("corr", judge(predictions), True),
                callbacks=[
                    self._new_features(settings.trees),
                    _progress(task.progress, settings.trees),
                    lightgbm.early_stopping(settings.early_stopping, verbose=False),
                ],
            )
        best, score = booster.best_iteration, float(booster.best_score["held_out"]["corr"])
        # the booster keeps the best trees only
        trees = max(best, min(settings.min_trees, settings.trees))
        kept = "" if trees == best else f"; keeping {trees:,} trees (MIN_TREES)"
        task.note(f"best held-out corr {score:.5f} at tree {best:,}{kept}")
        return LightGBMTrees(booster, best, {"trees": trees, "best_trees": best, "best_held_out_corr": score})

    def train_fixed(self, task: Task, training: lightgbm.Dataset, *, trees: int) -> LightGBMTrees:
        """Grow a given number of trees on all rows."""
        with task.progress.step(f"growing {trees:,} trees"):
            booster = lightgbm.train(
                dict(self.params),
                training,
                num_boost_round=trees,
                callbacks=[self._new_features(trees), _progress(task.progress, trees)],
            )
        chosen = {"objective": self.params["objective"], "max_bin": self.params["max_bin"], "trees": trees}
        return LightGBMTrees(booster, trees, chosen)

    def _new_features(self, trees: int) -> Any:
        """Return a callback that draws the features of each tree with its own seed.

        From one seed, the library's generator of random numbers draws four of 42 features so unevenly that one is in 89
        of 2,000 trees and another in 381, and some pairs in none.
        """
        seeds = np.random.default_rng(self.params["seed"]).integers(0, _MAX_SEED, trees)
        return lightgbm.reset_parameter(feature_fraction_seed=seeds.tolist())


class LightGBMTrees(NamedTuple):
    """The trained model.

    Attributes
    ----------
    booster : lightgbm.Booster
        It has a few more trees than are used.
    trees : int
        Number of trees in use.
    chosen : dict
        Parameters and results, for the report.
    threads : int
        Of a prediction; 0 for those of the training.
    """

    booster: lightgbm.Booster
    trees: int
    chosen: dict[str, Any]
    threads: int = 0

    def predict(self, block: NDArray[Any]) -> NDArray[np.float64]:
        """Predict rows, shape (rows, features), NaN or `MISSING` where a value is missing; in [0, 1], shape (rows,)."""
        threads = {"num_threads": self.threads} if self.threads else {}
        predictions = self.booster.predict(without_nan(block), num_iteration=self.trees, **threads)
        # the squared error knows no bounds
        return np.asarray(predictions, dtype=np.float64).clip(0, 1)

    def save(self, directory: Path) -> None:
        """Save the trees in use, in LightGBM's text format."""
        self.booster.save_model(directory / _FILE, num_iteration=self.trees)

    @classmethod
    def load(cls, directory: Path, threads: int) -> LightGBMTrees:
        """Load what `save` has saved."""
        booster = lightgbm.Booster(model_file=directory / _FILE)
        return cls(booster, booster.num_trees(), {}, threads)


class _Rows(lightgbm.Sequence):  # type: ignore[misc]  # LightGBM's class is untyped here
    """Passes blocks of rows to LightGBM, which reads single rows for the bins, then all; both in ascending order."""

    batch_size = 16_384

    def __init__(self, blocks: Callable[[], Iterator[NDArray[Any]]], rows: int) -> None:
        self._blocks, self._rows = blocks, rows
        self._restart()

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, index: Any) -> NDArray[np.float64]:
        if not isinstance(index, slice):
            row: NDArray[np.float64] = self._read(int(index), int(index) + 1)[0]
            return row
        start, stop, _ = index.indices(self._rows)
        return self._read(start, stop)

    def _restart(self) -> None:
        self._pass, self._start = self._blocks(), 0
        self._block: NDArray[Any] = np.empty((0, 0))

    def _read(self, start: int, stop: int) -> NDArray[np.float64]:
        if start < self._start:
            self._restart()
        parts: list[NDArray[np.float64]] = []
        while start < stop:
            while start >= self._start + len(self._block):
                self._start += len(self._block)
                self._block = next(self._pass)
            part = self._block[start - self._start : stop - self._start]
            # the library takes absolute values, and int8 has none of its lowest number, which is `MISSING`
            parts.append(without_nan(part).astype(np.float64))
            start += len(part)
        return np.concatenate(parts)


def _progress(progress: Progress, trees: int) -> Callable[[Any], None]:
    """Return a callback that logs the progress of the training."""

    def log(state: Any) -> None:
        done = state.iteration + 1
        position = f"tree {done:,} of {trees:,}"
        for _, score, value, *_ in state.evaluation_result_list or ():
            position = f"tree {done:,} of at most {trees:,}, held-out {score} {value:.5f}"
        progress.update(done / trees, position)

    return log
