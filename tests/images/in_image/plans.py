"""Runs in every image: prints the plans of operations, as JSON. Its cases are in PLANNED, see `conftest.run_plans`."""

from __future__ import annotations

import json
import os

from numerai_contract import operations
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Sizes

found = []
for case in json.loads(os.environ["PLANNED"]):
    module = operations.load(case["operation"])
    parameters = Parameters({"OPERATION": case["operation"], **case["environment"]})
    for training, validation in case["rows"]:
        for features in case["features"]:
            for value_bytes in case["value_bytes"]:
                plan = module.plan(parameters, Sizes(training, validation, features, value_bytes))
                sizes = (training + validation, features)
                found.append([case["operation"], parameters.memory_limit, *sizes, *plan])
print(json.dumps(found))
