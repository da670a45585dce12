"""Runs in the classic image: the SVM with all rows as landmarks, against the same machine of scikit-learn."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from scipy.special import logit
from sklearn.kernel_approximation import Nystroem
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from numerai_contract import operations
from numerai_contract.parameters import Parameters
from numerai_contract.task import Task

COST = 0.01

# loaded by its name, as the supervisor does
svm: Any = operations.load("svm")
task = Task(
    Parameters({"OPERATION": "svm", "TRAINING": "/data/training.parquet", "LANDMARKS": "10000", "C": str(COST)})
)
model = svm.fit(task).model
features = task.training.features().astype(np.float64)
margins = (logit(model.predict_block(features)) - model.offset) / model.slope

standardized = StandardScaler().fit_transform(features)
kernels = Nystroem(gamma=1 / (2 * features.shape[1]), n_components=len(features)).fit_transform(standardized)
# the squared errors are a sum over rows in both
ridge = Ridge(alpha=1 / (2 * COST)).fit(kernels, np.where(task.training.targets > 0.5, 1, -1))
expected = ridge.predict(kernels)
print(json.dumps({"difference": float(np.abs(margins - expected).max()), "deviation": float(expected.std())}))
