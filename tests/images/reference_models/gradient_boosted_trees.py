"""The operation with the smallest possible blocks, and XGBoost on all terms at once."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import xgboost
from sklearn.preprocessing import PolynomialFeatures

from numerai_contract import operations, targets
from numerai_contract.parameters import Parameters
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Task

task = Task(Parameters(os.environ))
operations.load("gradient_boosted_trees")
sys.modules["numerai_operations._polynomial"]._BLOCK_BYTES = 1  # type: ignore[attr-defined]
operations.run(task)
report = json.loads(Path(os.environ["REPORTING"]).read_text())["chosen"]

tables = SplitTables(task, targets.values(task.training), embeddings=(), row_limit=1_000_000)
polynomial = PolynomialFeatures(2, include_bias=False)
terms = polynomial.fit_transform(tables.training_features())
rows = polynomial.transform(np.vstack([block for _, block in tables.source.batches(task.testing)]))
settings = {
    "objective": "reg:logistic",
    "learning_rate": 0.05,
    "max_depth": 3,
    "colsample_bytree": 0.05,
    "min_child_weight": 10,
    "max_bin": 32,
    "seed": task.parameters.seed,
    "nthread": 2,
}
learning = xgboost.QuantileDMatrix(terms, tables.training_labels, max_bin=32)
expected = xgboost.train(settings, learning, num_boost_round=report["trees"]).inplace_predict(rows)

found = np.loadtxt(task.parameters.predicting, delimiter=",", skiprows=1, usecols=1)
print(np.abs(found - expected).max(), expected.std())
