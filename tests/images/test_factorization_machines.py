"""Factorization machines: the best iteration of myfm, and its formula."""

from __future__ import annotations

import pytest

from tests.images.conftest import Runner, assert_succeeded
from tests.images.split_data import few_floats, run_reference_model, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "factorization_machines"


def test_factorization_machines_largest_seed_is_accepted(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    first = assert_succeeded(runner.run(MODEL, {}, MAX_ITERATIONS="3")).predictions_bytes
    assert assert_succeeded(runner.run(MODEL, {}, MAX_ITERATIONS="3", SEED=str(2**32 - 1))).predictions_bytes != first


def test_factorization_machines_equals_myfm_and_the_formula(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    environment = {"EMBEDDINGS": "perplexity_05,perplexity_30_polynomial", "MAX_ITERATIONS": "30", "PRODUCTS": "always"}
    report = assert_succeeded(runner.run(MODEL, {}, **environment)).report
    # not the last one, which would be the best without any selection
    assert report["chosen"]["iteration"] < 30
    from_library, from_formula, spread, spread_of_products = run_reference_model(runner, MODEL, **environment)
    assert from_library < 1e-6
    assert from_formula < 1e-6
    assert spread > 0.05
    assert spread_of_products > 1e-3


def test_factorization_machines_early_stopping_keeps_the_best(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    last = "iteration 60 of at most 60"
    stopped = assert_succeeded(runner.run(MODEL, {}, MAX_ITERATIONS="60", EARLY_STOPPING="3", PRODUCTS="always"))
    assert not any(last in line for line in stopped.lines)
    # without early stopping it evaluates all of them, and none is better than 6, which is later than an end after 3
    complete = assert_succeeded(runner.run(MODEL, {}, MAX_ITERATIONS="60", EARLY_STOPPING="60", PRODUCTS="always"))
    assert any(last in line for line in complete.lines)
    # its linear part may improve for longer
    kept = [run.report["chosen"] | {"linear_validation_logloss": None} for run in (stopped, complete)]
    assert kept[0] == kept[1]
    assert 3 < complete.report["chosen"]["iteration"] < 57
