"""Runs in the classic image: whether loading an operation imports scikit-learn, each in a new process."""

from __future__ import annotations

import json
import subprocess
import sys

LOAD = """
import sys
from numerai_contract import operations, task
operations.load(sys.argv[1])
print("sklearn" in sys.modules)
"""


def imports_sklearn(operation: str) -> bool:
    process = subprocess.run([sys.executable, "-c", LOAD, operation], check=True, capture_output=True, text=True)
    return process.stdout.strip() == "True"


names = (
    "xgboost",
    "lightgbm",
    "gradient_boosted_trees",
    "logistic_regression",
    "pairwise_regression",
    "svm",
    "adversarial_validation",
)
print(json.dumps({name: imports_sklearn(name) for name in names}))
