"""Logistic regression on pairs: equal to the model of both rows, fitted to every pair and asked for every partner."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.images.conftest import Runner, assert_succeeded, binary, graded
from tests.images.split_data import few_floats, run_reference_model, write_split_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "pairwise_regression"


# weak and strong effects: the series of the loss has few terms, and many
@pytest.mark.parametrize(("target", "cost"), [(binary, "0.0001"), (binary, "1"), (graded, "0.01")])
def test_pairwise_regression_equals_the_model_of_both_rows(
    runner: Runner, target: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float32]], cost: str
) -> None:
    write_split_tables(runner.directory, few_floats, target)
    environment = {"C": cost, "ROW_LIMIT": "300", "EMBEDDINGS": "perplexity_15"}
    finished = assert_succeeded(runner.run(MODEL, {}, **environment))
    distance, spread, pairs = run_reference_model(runner, MODEL, **environment)
    assert finished.report["chosen"]["pairs"] == pairs
    assert distance < 1e-3
    assert spread > 10 * distance
