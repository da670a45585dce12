"""Runs in the classic image: default plans at the size of the tournament, as rows, features and memory."""

from __future__ import annotations

import json
import os

from numerai_contract import operations
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Sizes

# the memory of models.yaml
LIMITS = {"svm": "2560", "adversarial_validation": "6144"}

found = {}
for operation, limit in LIMITS.items():
    module = operations.load(operation)
    for features in (42, 780, 3_555):
        parameters = Parameters({**os.environ, "OPERATION": operation, "MEMORY_LIMIT": limit})
        found[f"{operation} {features}"] = module.plan(parameters, Sizes(2_750_000, 4_110_000, features))
print(json.dumps(found))
