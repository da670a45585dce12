"""Helpers of the models on the split, without the image: limits of rows, and a path of costs."""

from __future__ import annotations

import importlib
import io
import sys
from types import ModuleType
from typing import Any

import pytest

from numerai_contract.exits import BadParameterError
from numerai_contract.parameters import Parameters
from numerai_contract.progress import Progress
from numerai_contract.task import Task
from tests.samples import ROOT


@pytest.fixture(scope="module")
def classic() -> Any:
    """Import modules of the image that need numpy and scipy only."""
    package = ModuleType("classic_operations")
    package.__path__ = [str(ROOT / "model_images" / "classic")]
    sys.modules[package.__name__] = package
    return lambda name: importlib.import_module(f"{package.__name__}.{name}")


def test_row_limit_more_work_per_row_gives_fewer_rows(classic: Any) -> None:
    row_limit = classic("_split_utils").row_limit
    assert row_limit(2_500, 3_000_000_000) == 1_200_000
    assert row_limit(10_000, 3_000_000_000) == 300_000
    assert row_limit(2_400**2, 3_000_000_000) == 20_000


class _Terms:
    """Fits whose weights are their cost, with a record of their initial weights."""

    count = 3

    def __init__(self) -> None:
        self.starts: list[Any] = []

    def fit(self, _loss: object, cost: float, *, start: Any, on_iteration: Any, **_options: object) -> float:
        self.starts.append(start)
        on_iteration(1)
        return cost

    def form(self, weights: float) -> float:
        return weights


def _fit_path(classic: Any, loglosses: list[float]) -> tuple[Any, _Terms, str]:
    terms, log = _Terms(), io.StringIO()
    costs = [10.0**exponent for exponent in range(len(loglosses))]
    task = Task(Parameters({}), Progress(log))
    evaluate = dict(zip(costs, loglosses, strict=True)).__getitem__
    best = classic("_regularization_path").fit_path(task, terms, costs, evaluate, loss=None)
    return best, terms, log.getvalue()


def test_fit_path_best_cost_is_selected_with_warm_starts(classic: Any) -> None:
    best, terms, log = _fit_path(classic, [0.69, 0.68, 0.685, 0.67])
    assert (best.cost, best.form) == (1_000, 1_000)
    assert best.path == [
        {"C": 1, "logloss": 0.69},
        {"C": 10, "logloss": 0.68},
        {"C": 100, "logloss": 0.685},
        {"C": 1_000, "logloss": 0.67},
    ]
    assert terms.starts == [None, 1, 10, 100]
    assert "C = 100, 3 of at most 4: validation logloss 0.68500" in log
    assert "selected C = 1000 of 1, 10, 100, 1000" in log


def test_fit_path_two_rises_in_a_row_end_the_path(classic: Any) -> None:
    best, terms, _ = _fit_path(classic, [0.68, 0.69, 0.70, 0.60])
    assert (best.cost, best.form) == (1, 1)
    assert len(best.path) == len(terms.starts) == 3


@pytest.mark.parametrize(
    ("text", "costs"), [("", None), ("0.5", [0.5]), ("1,0.1, 10", [0.1, 1, 10]), ("1e-9,1e6", [1e-9, 1e6])]
)
def test_read_costs_valid_values_are_sorted(classic: Any, text: str, costs: list[float] | None) -> None:
    path = classic("_regularization_path")
    assert path.read_costs(Parameters({"C": text})) == (costs or list(path.COSTS))


@pytest.mark.parametrize("text", ["nan", "inf", "1,", "1e-10", "1e7", "1,1.0", "-1"])
def test_read_costs_invalid_values_raise_bad_parameter(classic: Any, text: str) -> None:
    with pytest.raises(BadParameterError, match=r"C is .*: allowed are different numbers from 1e-09 to 1,000,000"):
        classic("_regularization_path").read_costs(Parameters({"C": text}))
