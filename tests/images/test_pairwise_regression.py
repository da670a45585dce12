"""Logistic regression on pairs: equal to the model of both rows for every partner."""

from __future__ import annotations

import pytest

from tests.images.conftest import Runner, assert_succeeded
from tests.images.split_data import few_floats, run_reference_model, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "pairwise_regression"


def test_pairwise_regression_other_seed_predicts_differently(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    first = assert_succeeded(runner.run(MODEL, {}, C="0.001")).predictions_bytes
    assert assert_succeeded(runner.run(MODEL, {}, C="0.001", SEED="1")).predictions_bytes != first


@pytest.mark.parametrize(("cost", "rounds"), [("0.00001", "1"), ("0.01", "3")])
def test_pairwise_regression_equals_the_model_of_both_rows(runner: Runner, cost: str, rounds: str) -> None:
    write_split_tables(runner.directory, few_floats)
    environment = {"C": cost, "ROUNDS": rounds, "PARTNERS": "40", "EMBEDDINGS": "perplexity_15"}
    assert_succeeded(runner.run(MODEL, {}, **environment))
    distance, spread = run_reference_model(runner, MODEL, **environment)
    assert distance < 1e-3
    assert spread > 10 * distance
