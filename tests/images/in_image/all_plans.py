"""Runs in every image: prints the plan of each operation at Numerai's sizes, as JSON. Its parameters are in PLANNED."""

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
    for (training, validation), features in case["sizes"]:
        for value_bytes in (1, 4):
            plan = module.plan(parameters, Sizes(training, validation, features, value_bytes))
            found.append([case["operation"], training + validation, features, plan.rows, plan.features, plan.memory])
print(json.dumps(found))
