"""Helpers of the models on the split, without the image: plans of fits, and a path of costs."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import pytest

from numerai_contract.embeddings import PERPLEXITIES, Embedding
from numerai_contract.exits import BadParameterError
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Plan, Sizes
from tests.samples import ROOT


def _import_from(image: str, name: str) -> Any:
    """Import a module of an image that needs numpy and scipy only."""
    package = ModuleType(f"{image}_operations")
    package.__path__ = [str(ROOT / "model_images" / image)]
    sys.modules.setdefault(package.__name__, package)
    return importlib.import_module(f"{package.__name__}.{name}")


@pytest.fixture(scope="module")
def classic() -> Any:
    return partial(_import_from, "classic")


def _plan(kind: str, sizes: Sizes, **environment: str) -> Plan:
    """Plan a fit with the five embeddings of the features."""
    arguments = Parameters({"MEMORY_LIMIT": "6144"} | environment), sizes, [Embedding(each) for each in PERPLEXITIES]
    plans = _import_from("classic", "_split_plan")
    by_kind: dict[str, Callable[[], Plan]] = {
        "network": lambda: _import_from("networks", "_network_plan").network_plan(*arguments),
        "products": lambda: plans.quadratic_plan(*arguments),
        "linear": lambda: plans.split_plan(
            *arguments, max_work=30_000_000, power=1, needed=lambda rows, columns: 75 * rows * columns
        ),
    }
    return by_kind[kind]()


@pytest.mark.parametrize("value_bytes", [1, 4])
@pytest.mark.parametrize("features", [42, 780, 3_555])
@pytest.mark.parametrize("kind", ["products", "linear", "network"])
def test_plan_at_the_tournaments_size_fits_the_memory(kind: str, features: int, value_bytes: int) -> None:
    plan = _plan(kind, Sizes(2_750_000, 4_110_000, features, value_bytes))
    assert plan.rows >= 150_000
    assert plan.memory < 6_144
    if kind == "network":
        assert plan.features == features
    else:
        # features before rows
        assert plan.features == min(features, 100)


@pytest.mark.parametrize("kind", ["products", "linear", "network"])
def test_plan_of_a_small_table_has_all_rows_and_features(kind: str) -> None:
    plan = _plan(kind, Sizes(300_000, 54_000, 50), MEMORY_LIMIT="3072")
    assert plan[:2] == (354_000, 50)
    assert _plan(kind, Sizes(3_000, 800, 780))[:2] == (3_800, 780)


@pytest.mark.parametrize(("kind", "rows"), [("products", 1_000_000), ("linear", 200_000), ("network", 300_000)])
def test_plan_with_little_memory_has_fewer_rows_then_features(kind: str, rows: int) -> None:
    sizes = Sizes(1_000_000, 0, 100)
    some = _plan(kind, sizes, MEMORY_LIMIT="1000")
    assert 50_000 < some.rows < 500_000
    assert some.rows < _plan(kind, sizes).rows
    assert some.features == 100
    assert 990 < some.memory <= 1_000
    few = _plan(kind, sizes, MEMORY_LIMIT="1000", ROW_LIMIT=str(rows))
    assert few.rows == rows
    assert 10 <= few.features < 100
    assert few.memory <= 1_000


def test_plan_of_products_smaller_row_limit_has_more_features() -> None:
    sizes = Sizes(2_750_000, 4_110_000, 780)
    assert _plan("products", sizes).features == 100
    assert _plan("products", sizes, ROW_LIMIT="20000")[:2] == (20_000, 707)


@pytest.mark.parametrize(
    ("text", "costs"), [("", [3]), ("0.5", [0.5]), ("1,0.1, 10", [0.1, 1, 10]), ("1e-9,1e6", [1e-9, 1e6])]
)
def test_read_costs_valid_values_are_sorted(classic: Any, text: str, costs: list[float]) -> None:
    assert classic("_regularization_path").read_costs(Parameters({"C": text}), [3]) == costs


@pytest.mark.parametrize("text", ["nan", "inf", "1,", "1e-10", "1e7", "1,1.0", "-1"])
def test_read_costs_invalid_values_raise_bad_parameter(classic: Any, text: str) -> None:
    with pytest.raises(BadParameterError, match=r"C is .*: allowed are different numbers from 1e-09 to 1,000,000"):
        classic("_regularization_path").read_costs(Parameters({"C": text}), [3])
