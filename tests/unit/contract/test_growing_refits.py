"""The final fits of searches: the best model on more and more rows, within the time and the memory."""

from __future__ import annotations

import importlib
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from numerai_contract.model_directory import ModelDirectory
from numerai_contract.parameters import Parameters
from numerai_contract.plans import Sizes
from numerai_contract.search import growing_rows, has_time
from numerai_contract.task import Task
from tests.samples import ROOT

Writer = Callable[..., Path]
MODEL_IMAGES = ROOT / "model_images"

# a worker is a fork; the test process has threads of numerical libraries
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.mark.parametrize(
    ("least", "most", "expected"),
    [
        (50_000, 40_000, [40_000]),
        (50_000, 100_000, [100_000]),
        (50_000, 100_001, [50_000, 100_001]),
        (50_000, 1_000_000, [62_500, 250_000, 1_000_000]),
        (50_000, 6_860_000, [50_000, 107_187, 428_750, 1_715_000, 6_860_000]),
    ],
)
def test_growing_rows_end_with_all_rows(least: int, most: int, expected: list[int]) -> None:
    assert growing_rows(least, most) == expected


def test_has_time_assumes_seconds_that_grow_with_the_rows() -> None:
    assert has_time(0, 50_000, 0.0, 0.1)
    assert has_time(50_000, 200_000, 10.0, 40.0)
    assert not has_time(50_000, 200_000, 10.0, 39.9)


@pytest.mark.parametrize(("operation", "least"), [("auto_sklearn", 500_000), ("tpot", 500_000), ("auto_weka", 500_000)])
def test_plan_of_the_final_fit_has_the_rows_that_fit_the_memory(operation: str, least: int) -> None:
    module = _module(operation, f"{operation}_operation")
    sizes = Sizes(2_750_000, 4_110_000, 42, 1)
    small, large = (module.plan(Parameters({"MEMORY_LIMIT": str(memory)}), sizes) for memory in (4_096, 65_536))
    assert least < small.rows < sizes.rows
    assert small.memory <= 4_096
    assert large.rows == sizes.rows


@pytest.mark.parametrize(("table", "jobs", "memory"), [(10, 2, 1_000), (300, 1, 850)])
def test_auto_sklearn_members_have_memory_for_two_copies_of_the_rows(table: int, jobs: int, memory: int) -> None:
    budget = _module("auto_sklearn", "_budget")
    task = SimpleNamespace(parameters=Parameters({"MEMORY_LIMIT": "4096"}), sizes=Sizes(2_750_000, 4_110_000, 42, 1))
    of_search = budget.ResourceBudget(2, 3_000, 341 << 20)
    found = budget.allocate_refit(task, of_search, table << 20)
    assert found.jobs == jobs
    assert 2 * table <= memory <= jobs * found.memory
    # all of them, this process with the rows, and the stored models
    assert jobs * (found.memory - 450) + 600 + 981 + table + 4 * 341 <= 4_096
    alone = SimpleNamespace(parameters=Parameters({}), sizes=task.sizes)
    assert budget.allocate_refit(alone, of_search, table << 20) == of_search


class Learner:
    """Learns the mean; records nothing, fails above a number of rows."""

    def __init__(self, fails_above: int) -> None:
        self.fails_above, self.rows = fails_above, 0

    def get_params(self, **_options: object) -> dict[str, int]:
        return {"fails_above": self.fails_above}

    def fit(self, features: Any, _labels: Any) -> Learner:
        self.rows = len(features)
        if self.rows > self.fails_above:
            raise MemoryError
        return self

    def predict_proba(self, features: Any) -> Any:
        above = 0.5 + 0.01 * np.sin(np.arange(len(features)))
        return np.column_stack([1 - above, above])


def _module(image: str, name: str) -> Any:
    package = ModuleType(f"{image}_refits")
    package.__path__ = [str(MODEL_IMAGES / image)]
    sys.modules[package.__name__] = package
    # the libraries are not here, and are not needed for a final fit
    library = MagicMock()
    library.BaseEvolver = object
    for name_of_library in ("_library", "_spaces"):
        sys.modules[f"{package.__name__}.{name_of_library}"] = library
    return importlib.import_module(f"{package.__name__}.{name}")


@pytest.fixture
def final(write: Writer, tmp_path: Path) -> Task:
    """The task of a final fit on 2,000 rows."""

    def columns(name: str) -> dict[str, Any]:
        return {
            "id": [f"{name}{row}" for row in range(1_000)],
            "era": [f"era{1 + row // 50}" for row in range(1_000)],
            "data_type": [name] * 1_000,
            "feature1": np.random.default_rng(1).random(1_000).astype(np.float32),
            "target": (np.arange(1_000) % 2).astype(np.float32),
        }

    training = write(columns("train"))
    validation = write(columns("validation"), "validation.parquet")
    paths = {"TRAINING": training, "VALIDATION": validation, "STORING": tmp_path}
    named = {name: str(path) for name, path in paths.items()}
    task = Task(Parameters({**named, "EMBEDDINGS": "none", "EMBARGO": "0"}))
    task.model = ModelDirectory(tmp_path / "model")
    return task.for_final_fit()


@pytest.mark.parametrize(
    ("fails_above", "has_time", "rows", "note"),
    [
        (10_000, True, 2_000, None),
        (900, True, 800, None),
        (10, True, 0, "no final fit, using the first: the memory was not enough"),
        (10_000, False, 200, None),
    ],
)
def test_tpot_refit_keeps_the_model_of_the_largest_fit(
    final: Task, monkeypatch: pytest.MonkeyPatch, fails_above: int, has_time: bool, rows: int, note: str | None
) -> None:
    model = _module("tpot", "_model")
    monkeypatch.setattr(model, "has_time", lambda trained, *_: has_time or not trained)
    first = model.PipelineModel(Learner(fails_above), [])
    plan, budget = SimpleNamespace(seconds=60, seed=1), SimpleNamespace(whole_memory=None)
    refitted, trained = model.refit(final, plan, budget, first, [200, 800, 2_000], [])
    assert trained == rows
    assert refitted.pipeline.rows == rows
    assert (refitted is first) == (rows == 0)
    assert [text.startswith(note or "?") for text in final._notes if "final fit" in text] == ([True] if note else [])


def test_auto_sklearn_refit_keeps_each_members_model_of_the_largest_fit(final: Task) -> None:
    refit, ensemble, budget = (_module("auto_sklearn", name) for name in ("_refit", "_ensemble", "_budget"))
    members = [
        ensemble.Member(weight, pickle.dumps(Learner(fails_above)))
        for weight, fails_above in ((0.5, 10_000), (0.3, 900), (0.2, 10))
    ]
    first = ensemble.Ensemble("classifier", 0.5, 0.0, members)
    plan = budget.SearchPlan("classifier", 0.0, 60, 60, None, budget.ResourceBudget(1, 3_072, 0), 1, Path())
    found, refitted, rows = refit.refit(final, plan, first, [200, 800, 2_000], [])
    rows_of_members = [pickle.loads(member.pickled).rows for member in found.members]  # noqa: S301 (made here)
    assert rows_of_members == [2_000, 800, 0]
    assert [member.weight for member in found.members] == [0.5, 0.3, 0.2]
    assert (refitted, rows) == (2, 2_000)
    assert final._notes[-1] == "1 of 3 members keep their model of the first fit"
