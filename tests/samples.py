"""Names and entries that several tests share."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parent.parent
FLEMING = (
    "logistic_regression",
    "neural_network",
    "pairwise_network",
    "pairwise_regression",
    "factorization_machines",
    "gradient_boosted_trees",
    "tpot",
)
INDEPENDENT = ("svm", "xgboost", "wide_and_deep", "auto_sklearn", "auto_weka")


def task(**entry: object) -> dict[str, object]:
    """Make an entry of the registry with the least it needs."""
    return {"image": "classic", "about": "A test.", "memory": 512, "time_limit": 5, **entry}
