"""Gradient boosted trees on polynomials: XGBoost's, whether the terms come in blocks or all at once."""

from __future__ import annotations

import math

import pytest

from tests.images.conftest import Runner, five_bins, good, graded
from tests.images.on_the_split import distances, few_floats, spoilt, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "gradient_boosted_trees"
# trees enough to see what is asked, few enough to be quick
QUICK = {"LEARNING_RATE": "0.2", "EARLY_STOPPING": "10", "EMBEDDINGS": "perplexity_05,perplexity_30"}


def test_finds_a_known_signal_the_same_way_twice(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    ended = good(runner.run(MODEL))
    report = ended.report
    assert report["validation"]["logloss"] < 0.64
    assert report["validation"]["correlation"] > 0.3
    assert report["split"]["logloss"] < 0.66
    assert report["split"]["logloss"] == pytest.approx(report["chosen"]["best_held_out_logloss"], abs=1e-5)
    assert (report["rows"]["training"], report["rows"]["held_out"]) == (2_700, 300)
    assert report["chosen"]["terms"] == 20 + 20 * 21 // 2
    assert 20 <= report["chosen"]["trees"] < 1_000
    assert any("maps as features: perplexity_05, perplexity_10, " in line for line in ended.lines)
    bytes_before = ended.predictions_bytes
    assert good(runner.run(MODEL)).predictions_bytes == bytes_before


def test_finds_nothing_where_there_is_nothing(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats, shuffled=True)
    report = good(runner.run(MODEL, {}, **QUICK)).report
    assert report["validation"]["logloss"] > math.log(2) - 0.01
    assert abs(report["validation"]["correlation"]) < 0.15
    # the very first trees are the best, and would say next to nothing
    chosen = report["chosen"]
    assert chosen["best_trees"] < chosen["trees"] == min(20, chosen["best_trees"] + 10)


def test_takes_five_bins_and_learns_the_value_of_grades(runner: Runner) -> None:
    write_split_tables(runner.directory, five_bins, graded)
    report = good(runner.run(MODEL, {}, **QUICK | {"EMBEDDINGS": "none"})).report
    assert report["target"] == "graded"
    assert (report["rows"]["training"], report["rows"]["held_out"]) == (2_700, 300)
    assert report["validation"]["correlation"] > 0.7


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats, spoil=spoilt)
    assert good(runner.run(MODEL, {}, **QUICK)).report["validation"]["logloss"] < 0.66


def test_blocks_of_terms_grow_the_trees_of_all_terms(runner: Runner) -> None:
    # products of five bins have so few values that bins are exact, however the rows come
    write_split_tables(runner.directory, five_bins)
    distance, spread = distances(runner, MODEL, EMBEDDINGS="none", MAX_TREES="30")
    assert distance < 1e-6
    assert spread > 0.05


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MAX_DEPTH": "0"}, "MAX_DEPTH is '0': allowed is a whole number from 1 to 16"),
        ({"MAX_BIN": "1000"}, "MAX_BIN is '1000': allowed is a whole number from 2 to 256"),
        ({"COLSAMPLE": "0"}, "COLSAMPLE is '0': allowed is a number from 0.001 to 1"),
        ({"MEMORY_LIMIT": "256"}, "MEMORY_LIMIT is 256 MiB, and 3,000 rows of 1,890 terms need about"),
    ],
)
def test_mistakes_are_told_before_any_work(runner: Runner, environment: dict[str, str], message: str) -> None:
    write_split_tables(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert message in ended.lines[-1]
    assert not any("growing" in line for line in ended.lines)
