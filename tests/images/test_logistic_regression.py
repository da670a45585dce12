"""Logistic regression on polynomials: equal to scikit-learn's model."""

from __future__ import annotations

import pytest

from tests.images.conftest import Runner, assert_succeeded
from tests.images.split_data import few_floats, run_reference_model, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "logistic_regression"


# the strongest penalty of the path, the original's, and scikit-learn's default
@pytest.mark.parametrize("cost", ["0.00001", "0.01", "1"])
def test_logistic_regression_equals_scikit_learn(runner: Runner, cost: str) -> None:
    write_split_tables(runner.directory, few_floats)
    environment = {"C": cost, "EMBEDDINGS": "perplexity_05,perplexity_30_polynomial"}
    assert_succeeded(runner.run(MODEL, {}, **environment))
    distance, spread = run_reference_model(runner, MODEL, **environment)
    assert distance < 1e-3
    assert spread > 10 * distance


def test_logistic_regression_above_the_row_limit_samples(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    finished = assert_succeeded(runner.run(MODEL, {}, ROW_LIMIT="600", C="0.001"))
    assert finished.report["rows"]["training"] == 600
    assert finished.report["chosen"]["path"] == [pytest.approx({"C": 0.001, "logloss": 0.62}, abs=0.04)]
