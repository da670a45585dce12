"""scikit-learn's logistic regression on the concatenated rows of a pair, run once for every partner."""

import os

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from numerai_contract import operations, targets
from numerai_contract.parameters import Parameters
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Task

task = Task(Parameters(os.environ))
tables = SplitTables(task, targets.classes(task.training), embeddings=(), row_limit=1_000_000)
matrix = tables.training_features().astype(np.float64)
rows = np.vstack([block for _, block in tables.source.batches(task.testing)]).astype(np.float64)

rounds = int(os.environ["ROUNDS"])
# the same draws as the operation, since they are not part of the definition
random = np.random.default_rng(task.parameters.seed)
positive, negative = operations.load("pairwise_regression").pairs(tables.training_labels, rounds, random)
for drawn, label in ((positive, 1), (negative, 0)):
    for each in drawn.reshape(rounds, -1):
        assert (tables.training_labels[each] == label).all()
        assert len(set(each)) == len(each) == len(positive) // rounds
        assert (np.diff(each) < 0).any(), "drawn, not in order"
partners = random.permutation(len(matrix))[: int(os.environ["PARTNERS"])]

terms = make_pipeline(PolynomialFeatures(2, include_bias=False), StandardScaler()).fit(matrix)
learning = terms.transform(matrix)
one = np.vstack([learning[positive], learning[negative]])
other = np.vstack([learning[negative], learning[positive]])
which = np.repeat([1, 0], len(positive))
# a mean over the rounds, so that C does not depend on their number
cost = float(os.environ["C"]) / rounds
model = LogisticRegression(C=cost, tol=1e-8, max_iter=100_000).fit(np.hstack([one, other]), which)

scored = terms.transform(rows)
probabilities = [
    model.predict_proba(np.hstack([scored, np.tile(learning[partner], (len(scored), 1))]))[:, 1] for partner in partners
]
expected = np.mean(probabilities, axis=0)

found = np.loadtxt(task.parameters.predicting, delimiter=",", skiprows=1, usecols=1)
print(np.abs(found - expected).max(), expected.std())
