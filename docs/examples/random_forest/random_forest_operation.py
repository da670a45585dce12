"""A random forest: the smallest model with all parts of a model.

Environment variables: ``TREES`` (200), and ``LEAST_LEAF`` (20), the minimum number of rows in a leaf.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from sklearn.ensemble import RandomForestClassifier

from numerai_contract import saved_state, targets
from numerai_contract.fitting import Fitted
from numerai_contract.task import TrainingSummary

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from numerai_contract.tables import TableView
    from numerai_contract.task import Task


class Forest(NamedTuple):
    """The model; scikit-learn's trees support missing values."""

    trees: RandomForestClassifier

    def predict(self, task: Task, table: TableView) -> NDArray[np.float64]:
        """Predict all rows of a table, a batch at a time."""

        def predict_batch(block: NDArray[Any]) -> NDArray[np.float64]:
            return np.asarray(self.trees.predict_proba(block)[:, 1])

        return task.predict_rows(table, table.batches(), predict_batch)

    def save(self, directory: Path) -> None:
        """Save it for later runs."""
        saved_state.save_estimator(directory, self)


def fit(task: Task, earlier: Fitted | None = None) -> Fitted:  # noqa: ARG001 - the first fit selects nothing
    """Learn on the training table; in the final fit, on the validation table as well."""
    options = task.parameters
    count = options.get_int("TREES", 200, at_least=1, at_most=10_000)
    leaf = options.get_int("LEAST_LEAF", 20, at_least=1, at_most=100_000)
    trees = RandomForestClassifier(count, min_samples_leaf=leaf, n_jobs=options.threads, random_state=options.seed)
    rows, labels = targets.classes(task.training)
    with task.progress.step(f"growing {count} trees"):
        trees.fit(task.training.features(rows), labels)
    chosen = {"trees": count, "least_leaf": leaf}
    return Fitted(Forest(trees), TrainingSummary(len(labels), chosen=chosen, libraries=("scikit-learn",)))


def load(task: Task, directory: Path) -> Forest:  # noqa: ARG001 - every operation has this signature
    """Load the saved model."""
    return saved_state.load_estimator(directory)  # type: ignore[no-any-return]
