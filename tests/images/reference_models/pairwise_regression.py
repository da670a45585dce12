"""scikit-learn's logistic regression on the rows of a pair side by side, fitted to all pairs, run for all partners."""

import os

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from numerai_contract import targets
from numerai_contract.parameters import Parameters
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Task

task = Task(Parameters(os.environ))
tables = SplitTables(task, targets.values(task.training), embeddings=())
values = tables.training_labels.astype(np.float64)
matrix = tables.training_features().astype(np.float64)
rows = np.vstack([block for _, block in tables.source.batches(task.testing)]).astype(np.float64)

higher, lower = np.nonzero(np.subtract.outer(values, values) > 0)
differences = values[higher] - values[lower]
# a mean over the pairs, for each row
weights = differences * len(values) / differences.sum()

terms = make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler()).fit(matrix)
learning = terms.transform(matrix)
one = np.vstack([learning[higher], learning[lower]])
other = np.vstack([learning[lower], learning[higher]])
which = np.repeat([1, 0], len(higher))
model = LogisticRegression(C=float(os.environ["C"]), tol=1e-8, max_iter=100_000)
model.fit(np.hstack([one, other]), which, sample_weight=np.tile(weights, 2))

scored = terms.transform(rows)
probabilities = [model.predict_proba(np.hstack([scored, np.tile(row, (len(scored), 1))]))[:, 1] for row in learning]
expected = np.mean(probabilities, axis=0)

found = np.loadtxt(task.parameters.predicting, delimiter=",", skiprows=1, usecols=1)
print(np.abs(found - expected).max(), expected.std(), len(higher))
