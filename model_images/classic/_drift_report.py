"""The drift report of adversarial validation: the ROC curve, and the features that differ between the tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from scipy.stats import ks_2samp
from sklearn.metrics import roc_curve

from numerai_contract import eras, outputs

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task

_POINTS = 101
_MAX_FEATURES = 20
# rows of each table used to measure the drift of a feature
_ROWS = 50_000


class Roc(NamedTuple):
    """A receiver operating characteristic at evenly spaced false positive rates, from 0 to 1."""

    false_positive_rate: list[float]
    true_positive_rate: list[float]


def roc(is_later: NDArray[np.bool_], similarity: NDArray[np.float32]) -> Roc:
    """Compute the ROC curve of the similarity as a classifier of later rows; both of shape (rows,)."""
    false_rates, true_rates, _ = roc_curve(is_later, similarity)
    grid = np.linspace(0, 1, _POINTS)
    rates = np.interp(grid, false_rates, true_rates)
    rates[0] = 0.0
    return Roc(grid.tolist(), rates.tolist())


def drifting_features(task: Task, importances: Sequence[NDArray[np.float32]]) -> list[dict[str, Any]]:
    """Describe the features that are most important to the classifiers, the most important first.

    Parameters
    ----------
    task
        For its tables.
    importances
        One array for each fold, each of shape (features,), adding up to 1.

    Returns
    -------
    list of dict
        ``feature``; ``importance`` (its share, mean over the folds); ``shift`` (mean in the validation table less mean
        in the training table, in standard deviations of the latter); ``kolmogorov_smirnov`` (the largest difference
        between the two distribution functions, in [0, 1]). The last two use the known values, None without any.
    """
    mean = np.mean(np.vstack(importances), axis=0)
    order = np.argsort(-mean, kind="stable")[:_MAX_FEATURES]
    training, later = (_columns(table, order, task.parameters.seed) for table in (task.training, task.validation))
    described = []
    for column, feature in enumerate(order):
        before, after = (side[:, column][~np.isnan(side[:, column])] for side in (training, later))
        known = len(before) > 0 and len(after) > 0
        spread = before.std() if known else 0.0
        described.append(
            {
                "feature": task.training.feature_names[feature],
                "importance": float(mean[feature]),
                "shift": float((after.mean() - before.mean()) / spread) if spread > 0 else None,
                "kolmogorov_smirnov": float(ks_2samp(before, after).statistic) if known else None,
            }
        )
    return described


def _columns(table: TableView, features: NDArray[np.intp], seed: int) -> NDArray[np.float32]:
    rows = eras.sample(table.era_numbers, np.zeros(len(table), dtype=np.int8), _ROWS, seed=seed)
    return np.vstack([block[:, features].astype(np.float32, copy=False) for _, block in table.batches(rows)])


def plot_roc(path: Path, curve: Roc, auc: float) -> None:
    """Draw the curve as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), dpi=120, layout="constrained")
    axes = figure.add_subplot(aspect="equal")
    axes.plot([0, 1], [0, 1], color="0.6", linestyle="--", linewidth=1, label="no difference (AUC 0.5)")
    axes.plot(*curve, color="tab:blue", linewidth=2, label=f"similarity (AUC {auc:.3f})")
    axes.set(
        title="Training or later rows?",
        xlabel="false positive rate (training rows)",
        ylabel="true positive rate (later rows)",
        xlim=(0, 1),
        ylim=(0, 1),
    )
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with outputs.atomic_write(path) as part:
        figure.savefig(part, format="png")
