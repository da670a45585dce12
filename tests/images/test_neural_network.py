"""The neural network on the split: its parameters."""

from __future__ import annotations

import pytest

from tests.images.conftest import Runner, assert_succeeded, five_bins
from tests.images.split_data import write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "networks"
MODEL = "neural_network"


def test_neural_network_parameters_determine_the_layers(runner: Runner) -> None:
    write_split_tables(runner.directory, five_bins)
    small = {"HIDDEN_LAYERS": "3", "WIDTH": "4", "DROPOUT": "0", "EMBEDDINGS": "none", "ROW_LIMIT": "600"}
    finished = assert_succeeded(runner.run(MODEL, {}, MAX_EPOCHS="3", **small))
    # layers of 4, 2 and 1 units on 42 features, 4 weights of normalisation for each unit, and a last layer of 1 + 1
    assert f"training {42 * 4 + 4 * 2 + 2 * 1 + 4 * (4 + 2 + 1) + 2} weights on the cpu …" in finished.lines
    assert finished.report["rows"]["training"] == 600
    assert finished.report["chosen"]["embeddings"] == []
