"""A random forest: the smallest model with all parts of a model.

Environment variables: ``TREES`` (200), and ``LEAST_LEAF`` (20), the minimum number of rows in a leaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from numerai_contract import batches, targets
from numerai_contract.imputation import Medians
from numerai_contract.task import TrainingSummary

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from numerai_contract.task import Task


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    parameters = task.parameters
    trees = parameters.get_int("TREES", 200, at_least=1, at_most=10_000)
    least_leaf = parameters.get_int("LEAST_LEAF", 20, at_least=1, at_most=100_000)
    rows, labels = targets.classes(task.training)
    forest = RandomForestClassifier(
        trees, min_samples_leaf=least_leaf, n_jobs=parameters.threads, random_state=parameters.seed
    )
    with task.progress.step(f"growing {trees} trees"):
        features = task.training.features(rows).astype(np.float32)
        medians = Medians(features)
        forest.fit(medians.fill(features), labels)

    def predict(block: NDArray[Any]) -> NDArray[np.float64]:
        return np.asarray(forest.predict_proba(medians.fill(block.astype(np.float32)))[:, 1])

    tournament = task.tournament
    with task.progress.step("predicting"):
        found = batches.predict(tournament.batches(), len(tournament), predict, report=task.progress.update)
    chosen = {"trees": trees, "least_leaf": least_leaf}
    task.write_predictions(found, TrainingSummary(len(labels), chosen=chosen, libraries=("scikit-learn",)))
