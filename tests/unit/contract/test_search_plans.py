"""The plans of the searches: their rows, features and memory at the tournament's real size and at small sizes."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

import pytest
import yaml

from numerai_contract.parameters import Parameters
from numerai_contract.plans import Plan, Sizes
from tests.samples import ROOT

MODEL_IMAGES = ROOT / "model_images"
SEARCHES = ("auto_weka", "auto_sklearn", "tpot")
TASKS: dict[str, Any] = yaml.safe_load((MODEL_IMAGES / "models.yaml").read_text(encoding="utf-8"))["tasks"]


def _plan(operation: str, sizes: Sizes, **parameters: str) -> Plan:
    package = ModuleType(f"planned_{operation}")
    package.__path__ = [str(MODEL_IMAGES / operation)]
    sys.modules[package.__name__] = package
    module = importlib.import_module(f"{package.__name__}.{operation}_operation")
    found: Plan = module.plan(Parameters({"OPERATION": operation, "SEED": "1", **parameters}), sizes)
    return found


@pytest.mark.parametrize("operation", SEARCHES)
@pytest.mark.parametrize("value_bytes", [1, 4])
@pytest.mark.parametrize(("features", "selected"), [(42, 42), (780, 100), (3_555, 100)])
def test_plan_at_the_real_size_fits_with_50_000_rows(
    operation: str, features: int, selected: int, value_bytes: int
) -> None:
    memory = TASKS[operation]["memory"]
    found = _plan(operation, Sizes(2_750_000, 4_110_000, features, value_bytes), MEMORY_LIMIT=str(memory))
    assert found.memory <= memory
    assert found.rows >= 50_000
    assert found.features == selected


@pytest.mark.parametrize("operation", SEARCHES)
def test_plan_small_tables_have_all_rows_and_features(operation: str) -> None:
    found = _plan(operation, Sizes(3_000, 1_000, 20), MEMORY_LIMIT="2048")
    assert (found.rows, found.features) == (4_000, 20)
    assert found.memory <= 2_048


@pytest.mark.parametrize("operation", SEARCHES)
def test_plan_row_limit_wins(operation: str) -> None:
    sizes = Sizes(2_750_000, 4_110_000, 42)
    assert _plan(operation, sizes, MEMORY_LIMIT="4096", ROW_LIMIT="1000").rows == 1_000
    assert _plan(operation, sizes).rows >= 100_000
