"""Factorization machines: myfm's best iteration, and the formula it stands for."""

from __future__ import annotations

import math

import pytest

from tests.images.conftest import Runner, five_bins, good, graded
from tests.images.on_the_split import distances, few_floats, spoilt, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "factorization_machines"


def test_finds_a_known_signal_the_same_way_twice(runner: Runner) -> None:
    write_split_tables(runner.directory)
    ended = good(runner.run(MODEL))
    report = ended.report
    assert report["validation"]["logloss"] < 0.63  # .600 when this was written; a coin's is .693
    assert report["validation"]["correlation"] > 0.3
    assert report["split"]["logloss"] < 0.66
    assert report["split"]["logloss"] == pytest.approx(report["chosen"]["best_validation_logloss"], abs=1e-5)
    assert (report["rows"]["training"], report["rows"]["held_out"]) == (2_700, 300)
    assert "myfm" in report["libraries"]
    # its bar, which draws over itself, is not in the log
    assert not any("it/s" in line for line in ended.lines)
    bytes_before = ended.predictions_bytes
    assert good(runner.run(MODEL)).predictions_bytes == bytes_before


def test_the_largest_seed_is_a_seed_of_its_own(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    first = good(runner.run(MODEL, {}, MAX_ITERATIONS="3")).predictions_bytes
    assert good(runner.run(MODEL, {}, MAX_ITERATIONS="3", SEED=str(2**32 - 1))).predictions_bytes != first


def test_finds_nothing_where_there_is_nothing(runner: Runner) -> None:
    write_split_tables(runner.directory, shuffled=True)
    validation = good(runner.run(MODEL)).report["validation"]
    assert validation["logloss"] > math.log(2) - 0.01
    assert abs(validation["correlation"]) < 0.15


def test_takes_five_bins_and_grades(runner: Runner) -> None:
    write_split_tables(runner.directory, five_bins, graded)
    report = good(runner.run(MODEL)).report
    assert report["target"] == "graded"
    assert report["validation"]["correlation"] > 0.7


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_split_tables(runner.directory, spoil=spoilt)
    assert good(runner.run(MODEL)).report["validation"]["logloss"] < 0.64


def test_it_is_myfm_s_best_iteration_and_rendle_s_formula(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    environment = {"EMBEDDINGS": "perplexity_05,perplexity_30_polynomial", "MAX_ITERATIONS": "30"}
    report = good(runner.run(MODEL, {}, **environment)).report
    # not the last one, or there would be no best to keep
    assert report["chosen"]["iteration"] < 30
    from_library, from_formula, spread, spread_of_products = distances(runner, MODEL, **environment)
    assert from_library < 1e-6
    assert from_formula < 1e-6
    assert spread > 0.05
    assert spread_of_products > 1e-3


def test_ends_when_it_gains_no_longer(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    last = "iteration 60 of at most 60"
    impatient = good(runner.run(MODEL, {}, MAX_ITERATIONS="60", EARLY_STOPPING="3"))
    assert not any(last in line for line in impatient.lines)
    # one that may wait looks at all of them, and finds no better one: 6, later than an end after 3 whatever they gain
    patient = good(runner.run(MODEL, {}, MAX_ITERATIONS="60", EARLY_STOPPING="60"))
    assert any(last in line for line in patient.lines)
    assert impatient.report["chosen"] == patient.report["chosen"]
    assert 3 < patient.report["chosen"]["iteration"] < 57


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"RANK": "0"}, "RANK is '0': allowed is a whole number from 1 to 256"),
        ({"MAX_ITERATIONS": "few"}, "MAX_ITERATIONS is 'few': allowed is a whole number from 1 to 10,000"),
        ({"INITIAL_DEVIATION": "0"}, "INITIAL_DEVIATION is '0': allowed is a number from 1e-06 to 1"),
        ({"MEMORY_LIMIT": "256"}, "MEMORY_LIMIT is 256 MiB, and 2,700 rows of 60 features and coordinates need about"),
    ],
)
def test_mistakes_are_told_before_any_work(runner: Runner, environment: dict[str, str], message: str) -> None:
    write_split_tables(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert message in ended.lines[-1]
    assert not any("fitting" in line for line in ended.lines)
