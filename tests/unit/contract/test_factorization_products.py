"""The products of a factorization machine: kept where they help, left out with a warning where they hurt."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy.special import ndtr

from numerai_contract.model_directory import ModelDirectory
from numerai_contract.parameters import Parameters
from numerai_contract.split import Split, write_split
from numerai_contract.task import Task
from tests.samples import ROOT

ROWS, FEATURES = 600, 3
# iterations of a machine: its weights and vectors
WEAK, GOOD = np.full(FEATURES, 0.1), np.array([1.0, -1.0, 0.0])
HELPFUL, HARMFUL = (np.array([[0.0], [1.0], [size]]) for size in (0.6, -0.6))

Writer = Callable[..., Path]
Fit = Callable[..., tuple[Task, Any, Any]]


class _Machine:
    """A machine whose iterations are given."""

    def __init__(self, iterations: list[tuple[Any, Any]]) -> None:
        self._iterations = iterations

    def fit(self, _matrix: object, _labels: object, *, n_iter: int, callback: Any) -> None:
        for index, (weights, vectors) in enumerate(self._iterations[:n_iter]):
            if callback(index, SimpleNamespace(w0=0.0, w=weights, V=vectors), None, None)[0]:
                return


@pytest.fixture
def fit(write: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fit:
    """Fit a machine of given iterations on rows that follow x0 - x1 + 0.6 x1 x2; then make the final fit."""
    package = ModuleType("classic_machines")
    package.__path__ = [str(ROOT / "model_images" / "classic")]
    sys.modules[package.__name__] = package
    operation: Any = importlib.import_module(f"{package.__name__}.factorization_machines_operation")
    random = np.random.default_rng(2)
    features = random.normal(size=(ROWS, FEATURES)).astype(np.float32)
    sums = features[:, 0] - features[:, 1] + 0.6 * features[:, 1] * features[:, 2]
    columns = {
        "id": [f"n{row}" for row in range(ROWS)],
        "era": [f"era{1 + row // 50}" for row in range(ROWS)],
        "data_type": ["train"] * ROWS,
        **{f"feature{number}": features[:, number] for number in range(FEATURES)},
        "target": (random.random(ROWS) < ndtr(sums)).astype(np.float32),
    }
    training = write(columns)
    validation = write(columns | {"id": [f"v{row}" for row in range(ROWS)]}, "validation.parquet")

    def both_fits(*iterations: tuple[Any, Any], **environment: str) -> tuple[Task, Any, Any]:
        monkeypatch.setattr(operation, "_classifier", lambda *_: _Machine([*iterations]))
        paths = {"TRAINING": training, "VALIDATION": validation, "STORING": tmp_path, "MODEL": tmp_path / "model"}
        named = {name: str(path) for name, path in paths.items()} | {"EMBEDDINGS": "none", "EMBARGO": "0"}
        task = Task(Parameters({"OPERATION": "factorization_machines", **named, **environment}))
        task.model = ModelDirectory(tmp_path / "model")
        split = np.arange(ROWS) >= ROWS // 2
        write_split(tmp_path, task.training.ids, Split(split.astype(np.float32), split), None)
        first = operation.fit(task)
        return task, first, operation.fit(task.for_final_fit(), first)

    return both_fits


def test_products_that_hurt_are_left_out_with_a_warning(fit: Fit) -> None:
    task, first, final = fit((WEAK, HARMFUL), (GOOD, HARMFUL), (WEAK, HARMFUL))
    chosen = first.summary.chosen
    assert (chosen["iteration"], chosen["products"]) == (2, False)
    assert chosen["linear_validation_logloss"] < chosen["best_validation_logloss"]
    assert any(note.startswith("warning: the products hurt") and "leaves out" in note for note in task._notes)
    for fitted in (first, final):
        assert not fitted.model._form.products.any()
        assert fitted.choice == (2, False)
    assert first.summary.split.logloss == pytest.approx(chosen["linear_validation_logloss"])
    assert np.sign(final.model._form.linear).tolist() == [1, -1, 0]


def test_products_that_help_are_kept(fit: Fit) -> None:
    task, first, final = fit((WEAK, HARMFUL), (GOOD, HELPFUL), (WEAK, HELPFUL))
    chosen = first.summary.chosen
    assert (chosen["iteration"], chosen["products"]) == (2, True)
    assert chosen["best_validation_logloss"] < chosen["linear_validation_logloss"]
    assert not any("warning" in note for note in task._notes)
    for fitted in (first, final):
        assert fitted.model._form.products.any()
    assert first.summary.split.logloss == pytest.approx(chosen["best_validation_logloss"])


def test_products_that_hurt_are_kept_on_request_with_the_warning(fit: Fit) -> None:
    task, first, final = fit((GOOD, HARMFUL), (WEAK, HARMFUL), PRODUCTS="always")
    assert first.summary.chosen["products"]
    assert any(note.startswith("warning: the products hurt") and "keeps" in note for note in task._notes)
    assert first.model._form.products.any()
    assert final.model._form.products.any()


def test_iterations_end_when_the_machine_has_not_improved(fit: Fit) -> None:
    # the machine's best is the first iteration, its linear part's the third
    iterations = [(GOOD, HELPFUL), (WEAK, HARMFUL), (1.1 * GOOD, HARMFUL), (WEAK, HARMFUL), (WEAK, HARMFUL)]
    _, ended, _ = fit(*iterations, (2 * GOOD, HELPFUL), EARLY_STOPPING="2")
    _, complete, _ = fit(*iterations, EARLY_STOPPING="20")
    assert ended.summary.chosen == complete.summary.chosen
    assert ended.summary.chosen["iteration"] == 1
