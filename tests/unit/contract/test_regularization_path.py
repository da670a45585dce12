"""The path of penalties of the linear models on products, and their loss on values."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from numerai_contract.parameters import Parameters
from numerai_contract.task import Task
from tests.samples import ROOT

FEATURES = 4


@pytest.fixture(scope="module")
def classic() -> Callable[[str], Any]:
    """Import a module of the classic image that needs neither XGBoost nor faiss."""
    package = ModuleType("classic_path")
    package.__path__ = [str(ROOT / "model_images" / "classic")]
    sys.modules[package.__name__] = package
    return lambda name: importlib.import_module(f"{package.__name__}.{name}")


def _fit(
    classic: Callable[[str], Any], strength: float, rows: int = 2_000, *, inverted: bool = False, **environment: str
) -> Any:
    """Fit a path on rows whose target follows the features with a strength, and select on as many others."""
    random = np.random.default_rng(1)
    features = random.normal(size=(2 * rows, FEATURES)).astype(np.float32)
    chances = 1 / (1 + np.exp(-strength * features.sum(axis=1)))
    labels = ((random.random(2 * rows) < chances) * 0.5 + 0.25).astype(np.float32)
    if inverted:
        labels[rows:] = 1 - labels[rows:]
    path, operation = classic("_regularization_path"), classic("logistic_regression_operation")
    terms = classic("_quadratic").Terms(features[:rows], 1)
    return path.fit_path(
        Task(Parameters(environment)),
        terms,
        path.read_penalties(Parameters(environment)),
        lambda form: operation.mean_loss(form.compute(features[rows:]), labels[rows:]),
        loss=operation.logistic_loss(labels[:rows]),
        weight=rows,
    )


def _penalties(found: Any, rows: int = 2_000) -> list[float]:
    return [1 / (fit["C"] * rows) for fit in found.path]


def test_path_ends_when_the_loss_has_risen_twice(classic: Callable[[str], Any]) -> None:
    found = _fit(classic, 0.05)
    losses = [fit["logloss"] for fit in found.path]
    assert losses[-3] < losses[-2] < losses[-1]
    assert len(losses) < len(classic("_regularization_path").PENALTIES)
    assert found.penalty == pytest.approx(_penalties(found)[int(np.argmin(losses))])
    assert found.cost == pytest.approx(1 / (found.penalty * 2_000))


def test_path_is_extended_while_the_strongest_penalty_is_best(classic: Callable[[str], Any]) -> None:
    found = _fit(classic, 0.5, inverted=True)
    assert found.penalty > classic("_regularization_path").PENALTIES[0]
    assert max(_penalties(found)) <= 300


def test_path_is_extended_while_the_weakest_penalty_is_best(
    classic: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(classic("_regularization_path"), "PENALTIES", (30.0, 10.0))
    found = _fit(classic, 0.5)
    losses = [fit["logloss"] for fit in found.path]
    assert found.penalty < 1
    # one fit beyond the best
    assert int(np.argmin(losses)) == len(losses) - 2


def test_path_given_costs_are_not_extended(classic: Callable[[str], Any]) -> None:
    found = _fit(classic, 0.5, C="1e-5,1e-4")
    assert [fit["C"] for fit in found.path] == pytest.approx([1e-5, 1e-4])


def test_path_loss_that_is_not_a_number_is_never_selected(classic: Callable[[str], Any]) -> None:
    path, operation = classic("_regularization_path"), classic("logistic_regression_operation")
    random = np.random.default_rng(1)
    features, labels = random.normal(size=(100, FEATURES)).astype(np.float32), random.random(100).astype(np.float32)
    losses = iter([float("nan"), 0.5, float("nan")])
    parameters = Parameters({"C": "0.001,0.01,0.1"})
    found = path.fit_path(
        Task(parameters),
        classic("_quadratic").Terms(features, 1),
        path.read_penalties(parameters),
        lambda _form: next(losses),
        loss=operation.logistic_loss(labels),
        weight=100,
    )
    assert found.cost == pytest.approx(0.01)


def test_logistic_loss_of_values_has_its_minimum_at_their_mean(classic: Callable[[str], Any]) -> None:
    operation = classic("logistic_regression_operation")
    values = np.array([0, 0.25, 0.5, 1, 1], dtype=np.float32)
    mean = float(values.mean())
    loss, slopes = operation.logistic_loss(values)(np.full(5, np.log(mean / (1 - mean))))
    assert slopes.sum() == pytest.approx(0, abs=1e-6)
    assert loss / 5 == pytest.approx(-mean * np.log(mean) - (1 - mean) * np.log(1 - mean))
    assert operation.mean_loss(np.zeros(5), values) == pytest.approx(np.log(2))
