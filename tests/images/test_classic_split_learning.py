"""What the models on the split share, without the image: medians, limits of rows, and a path of costs."""

from __future__ import annotations

import importlib
import io
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from numerai_contract.exits import BadParameterError
from numerai_contract.parameters import Parameters
from numerai_contract.progress import Progress
from tests.samples import ROOT


@pytest.fixture(scope="module")
def classic() -> Any:
    """Import modules of the image that need no more than numpy."""
    package = ModuleType("classic_operations")
    package.__path__ = [str(ROOT / "model_images" / "classic")]
    sys.modules[package.__name__] = package
    return lambda name: importlib.import_module(f"{package.__name__}.{name}")


def test_medians_are_those_of_the_rows_learned_from(classic: Any) -> None:
    hole = np.nan
    medians = classic("_split_learning").Medians(
        np.array([[1, hole, 5], [2, hole, hole], [9, hole, 6]], dtype=np.float32)
    )
    others = np.array([[hole, hole, hole], [7, 8, 9]], dtype=np.float32)
    assert medians.fill(others).tolist() == [[2, 0, 5.5], [7, 8, 9]]
    assert others[0].tolist() == [2, 0, 5.5]  # in place


def test_row_limit_falls_with_the_work_of_a_row_but_not_to_nothing(classic: Any) -> None:
    row_limit = classic("_split_learning").row_limit
    assert row_limit(2_500, 3_000_000_000) == 1_200_000
    assert row_limit(10_000, 3_000_000_000) == 300_000
    assert row_limit(2_400**2, 3_000_000_000) == 20_000


class _Terms:
    """Fits whose weights are their cost and where they began."""

    count = 3

    def __init__(self) -> None:
        self.began: list[Any] = []

    def fit(self, _loss: object, cost: float, *, start: Any, say: Any, **_options: object) -> float:
        self.began.append(start)
        say(1)
        return cost

    def form(self, weights: float) -> float:
        return weights


def _choose(classic: Any, loglosses: list[float]) -> tuple[Any, _Terms, str]:
    terms, said = _Terms(), io.StringIO()
    costs = [10.0**exponent for exponent in range(len(loglosses))]
    chosen = classic("_cost_path").choose(
        Progress(said), terms, costs, dict(zip(costs, loglosses, strict=True)).__getitem__, loss=None
    )
    return chosen, terms, said.getvalue()


def test_the_best_of_a_path_is_kept_and_each_fit_begins_where_the_last_ended(classic: Any) -> None:
    chosen, terms, said = _choose(classic, [0.69, 0.68, 0.685, 0.67])
    assert (chosen.cost, chosen.form) == (1_000, 1_000)
    assert chosen.path == [
        {"C": 1, "logloss": 0.69},
        {"C": 10, "logloss": 0.68},
        {"C": 100, "logloss": 0.685},
        {"C": 1_000, "logloss": 0.67},
    ]
    assert terms.began == [None, 1, 10, 100]
    assert "C = 100, 3 of at most 4: validation logloss 0.68500" in said


def test_a_path_ends_after_two_rises_in_a_row(classic: Any) -> None:
    chosen, terms, _ = _choose(classic, [0.68, 0.69, 0.70, 0.60])
    assert (chosen.cost, chosen.form) == (1, 1)
    assert len(chosen.path) == len(terms.began) == 3


@pytest.mark.parametrize(
    ("text", "costs"), [("", None), ("0.5", [0.5]), ("1,0.1, 10", [0.1, 1, 10]), ("1e-9,1e6", [1e-9, 1e6])]
)
def test_costs_are_read_in_ascending_order(classic: Any, text: str, costs: list[float] | None) -> None:
    path = classic("_cost_path")
    assert path.read_costs(Parameters({"C": text})) == (costs or list(path.COSTS))


@pytest.mark.parametrize("text", ["nan", "inf", "1,", "1e-10", "1e7", "1,1.0", "-1"])
def test_costs_that_make_no_sense_are_refused(classic: Any, text: str) -> None:
    with pytest.raises(BadParameterError, match=r"C is .*: allowed are different numbers from 1e-09 to 1,000,000"):
        classic("_cost_path").read_costs(Parameters({"C": text}))
