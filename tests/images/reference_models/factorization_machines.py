"""The prediction of myfm after the iteration that the operation selected, and its formula, term by term."""

import json
import os
from pathlib import Path

import numpy as np
from myfm import VariationalFMClassifier
from scipy.sparse import csr_matrix
from scipy.stats import norm
from sklearn.preprocessing import StandardScaler

from numerai_contract import targets
from numerai_contract.parameters import Parameters
from numerai_contract.split_tables import SplitTables
from numerai_contract.task import Task

task = Task(Parameters(os.environ))
tables = SplitTables(task, targets.classes(task.training), embeddings=(), row_limit=1_000_000)
scaler = StandardScaler()
matrix = scaler.fit_transform(tables.training_features())
rows = np.vstack([scaler.transform(block) for _, block in tables.source.batches(task.testing)]).astype(np.float64)

kept = json.loads(Path(os.environ["REPORTING"]).read_text())["chosen"]["iteration"]
machine = VariationalFMClassifier(rank=8, init_stdev=0.01, random_seed=task.parameters.seed)
machine.fit(csr_matrix(matrix.astype(np.float64)), tables.training_labels, n_iter=kept)
expected = machine.predict_proba(csr_matrix(rows))

vectors = machine.V_mean
halves = (rows @ vectors) ** 2 - rows**2 @ vectors**2
formula = norm.cdf(machine.w0_mean + rows @ machine.w_mean + halves.sum(axis=1) / 2)

found = np.loadtxt(task.parameters.predicting, delimiter=",", skiprows=1, usecols=1)
print(np.abs(found - expected).max(), np.abs(found - formula).max(), expected.std(), halves.sum(axis=1).std())
