"""A random forest: the smallest model that does everything a model should.

Its parameters: ``TREES`` (200), and ``LEAST_LEAF`` (20), the rows a leaf must hold at least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from sklearn.ensemble import RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline

from numerai_contract import targets
from numerai_contract.task import Learned

if TYPE_CHECKING:
    from numerai_contract.task import Task


def run(task: Task) -> None:
    """Fit on the training table and predict the tournament table."""
    parameters = task.parameters
    trees = parameters.whole("TREES", 200, at_least=1, at_most=10_000)
    least_leaf = parameters.whole("LEAST_LEAF", 20, at_least=1, at_most=100_000)
    rows, labels = targets.classes(task.training)
    forest = RandomForestClassifier(
        trees, min_samples_leaf=least_leaf, n_jobs=parameters.threads, random_state=parameters.seed
    )
    model = make_pipeline(SimpleImputer(strategy="median", keep_empty_features=True), forest)
    with task.progress.step(f"growing {trees} trees"):
        model.fit(task.training.features(rows).astype(np.float32), labels)
    probabilities = np.empty(len(task.tournament))
    with task.progress.step("predicting"):
        for positions, block in task.tournament.batches():
            probabilities[positions] = model.predict_proba(block.astype(np.float32))[:, 1]
            task.progress.update((positions[-1] + 1) / len(probabilities), f"row {positions[-1] + 1:,}")
    chosen = {"trees": trees, "least_leaf": least_leaf}
    task.deliver(probabilities, Learned(len(labels), chosen=chosen, libraries=("scikit-learn",)))
