"""Logistic regression on polynomials: scikit-learn's model by other means, its cost chosen on the split."""

from __future__ import annotations

import math

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.images.conftest import Runner, five_bins, good, graded
from tests.images.on_the_split import distances, few_floats, spoilt, write_split_tables

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "classic"
MODEL = "logistic_regression"


def test_finds_a_known_signal_the_same_way_twice(runner: Runner) -> None:
    write_split_tables(runner.directory)
    ended = good(runner.run(MODEL))
    report = ended.report
    assert report["validation"]["logloss"] < 0.63  # .606 when this was written; a coin's is .693
    assert report["validation"]["correlation"] > 0.3
    assert report["split"]["logloss"] < 0.66
    assert (report["rows"]["training"], report["rows"]["held_out"]) == (2_700, 300)
    assert report["chosen"]["terms"] == 60 + 60 * 61 // 2
    assert any("perplexity_05_polynomial, perplexity_10_polynomial" in line for line in ended.lines)
    best = min(report["chosen"]["path"], key=lambda fit: fit["logloss"])
    assert report["chosen"]["C"] == best["C"]
    assert report["split"]["logloss"] == pytest.approx(best["logloss"], abs=1e-5)
    bytes_before = ended.predictions_bytes
    assert good(runner.run(MODEL)).predictions_bytes == bytes_before


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
    targets = pq.read_table(runner.directory / "training.parquet", columns=["target"])["target"].to_numpy()
    assert report["rows"]["training"] + report["rows"]["held_out"] == np.count_nonzero(targets != 0.5) < 2_500


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_split_tables(runner.directory, spoil=spoilt)
    assert good(runner.run(MODEL)).report["validation"]["logloss"] < 0.64


# the strongest penalty of the path, the original's, and scikit-learn's default
@pytest.mark.parametrize("cost", ["0.00001", "0.01", "1"])
def test_it_is_scikit_learn_s_pipeline(runner: Runner, cost: str) -> None:
    write_split_tables(runner.directory, few_floats)
    environment = {"C": cost, "EMBEDDINGS": "perplexity_05,perplexity_30_polynomial"}
    good(runner.run(MODEL, {}, **environment))
    distance, spread = distances(runner, MODEL, **environment)
    assert distance < 1e-3
    assert spread > 10 * distance


def test_samples_above_its_row_limit(runner: Runner) -> None:
    write_split_tables(runner.directory, few_floats)
    ended = good(runner.run(MODEL, {}, ROW_LIMIT="600", C="0.001"))
    assert ended.report["rows"]["training"] == 600
    assert ended.report["chosen"]["path"] == [{"C": 0.001, "logloss": pytest.approx(0.62, abs=0.04)}]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"C": "0.1,much"}, "C is '0.1,much': allowed are different numbers from 1e-09 to 1,000,000, by comma"),
        ({"C": "0.1,0.1"}, "C is '0.1,0.1': allowed are different numbers"),
        ({"C": "0"}, "C is '0': allowed are different numbers"),
        ({"EMBEDDINGS": "perplexity_5"}, "EMBEDDINGS is 'perplexity_5': allowed are none, or different names"),
        ({"MEMORY_LIMIT": "256"}, "MEMORY_LIMIT is 256 MiB, and 2,700 rows of 60 features and coordinates need about"),
    ],
)
def test_mistakes_are_told_before_any_work(runner: Runner, environment: dict[str, str], message: str) -> None:
    write_split_tables(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert message in ended.lines[-1]
    assert not any("fitting" in line for line in ended.lines)
