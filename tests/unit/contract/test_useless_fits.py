"""The warning of networks whose best held-out loss is not below that of a constant."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from numerai_contract.parameters import Parameters
from numerai_contract.task import Task
from tests.samples import ROOT


@pytest.fixture
def keras_utils(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import the networks' module; Keras and JAX, which are not here, are not needed for the report."""
    keras, jax = ModuleType("keras"), ModuleType("jax")
    keras.__dict__.update(
        layers=SimpleNamespace(),
        ops=SimpleNamespace(),
        utils=SimpleNamespace(PyDataset=object),
        callbacks=SimpleNamespace(Callback=object),
    )
    package = ModuleType("networks_modules")
    package.__path__ = [str(ROOT / "model_images" / "networks")]
    for module in (keras, jax, package):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return importlib.import_module(f"{package.__name__}._keras_utils")


@pytest.mark.parametrize(("loss", "has_warning"), [(0.8, False), (0.9, True)])
def test_useless_fit_has_a_warning_in_the_report(
    keras_utils: Any, monkeypatch: pytest.MonkeyPatch, loss: float, has_warning: bool
) -> None:
    monkeypatch.setattr(keras_utils, "Batches", lambda *_, **__: None)
    monkeypatch.setattr(keras_utils, "train", lambda *_: (3, {"best_held_out_logloss": loss}))
    training, held_out = (SimpleNamespace(labels=np.array(labels, np.float32)) for labels in ([0, 1, 1, 1], [0, 1]))
    examples = SimpleNamespace(training=training, held_out=held_out)
    task = Task(Parameters({"SEED": "1"}))
    epochs, chosen = keras_utils.train_on_rows(task, None, examples, SimpleNamespace(batch_size=2), None)
    assert epochs == 3
    # the constant is the mean of the training labels, 0.75
    assert chosen["constant_held_out_logloss"] == pytest.approx(-(np.log(0.75) + np.log(0.25)) / 2)
    assert [note.startswith("warning: the best held-out logloss 0.9") for note in task._notes] == [True] * has_warning
