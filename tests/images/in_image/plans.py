"""Runs in the classic image: plans of operations at the size of the tournament, as rows, features and memory."""

from __future__ import annotations

import json
import os

from numerai_contract import operations
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Sizes

ROWS = (2_750_000, 4_110_000)
OPERATIONS = {"xgboost": (2_048, 6_144, 16_384), "gradient_boosted_trees": (2_048, 6_144)}

found = {}
for operation, limits in OPERATIONS.items():
    module = operations.load(operation)
    for limit in limits:
        for features in (42, 780, 3_555):
            for value_bytes in (1, 4):
                parameters = Parameters({**os.environ, "OPERATION": operation, "MEMORY_LIMIT": str(limit)})
                plan = module.plan(parameters, Sizes(*ROWS, features, value_bytes))
                found[f"{operation} {limit} {features} {value_bytes}"] = plan
print(json.dumps(found))
