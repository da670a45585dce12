"""The neural network on the split and the maps: how it does, what it takes, and how it ends."""

from __future__ import annotations

import pytest

from numerai_contract.self_test import write_fixture_inputs
from tests.images.conftest import Runner, five_bins, good, graded, spoilt, write_tables
from tests.images.signals import write_known_signal

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "networks"
MODEL = "neural_network"
SHORT = {"MAX_EPOCHS": "3"}


def test_beats_a_coin_stops_by_the_split_and_does_the_same_twice(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 5_000)
    write_fixture_inputs(runner.directory)
    ended = good(runner.run(MODEL))
    report = ended.report
    # below a coin's by 0.020 to 0.024 with four seeds
    assert report["validation"]["logloss"] < signal.coin_toss - 0.012
    assert report["validation"]["correlation"] > 0.1
    assert report["rows"] == {"training": 4_500, "held_out": 500, "tournament": 1_100}
    chosen = report["chosen"]
    assert chosen["best_epoch"] < chosen["epochs"] < 200
    # the weights of the best epoch are those that predicted
    assert report["split"]["logloss"] == pytest.approx(chosen["best_held_out_logloss"], abs=1e-5)
    assert chosen["embeddings"] == [f"perplexity_{perplexity}_polynomial" for perplexity in ("05", "15", "50")]
    assert (chosen["hidden_layers"], chosen["width"]) == (2, 32)
    assert {"keras", "jax", "jaxlib"} <= report["libraries"].keys()
    bytes_before = ended.predictions_bytes
    # less of the processor, so that threads meet in another order
    assert good(runner.run(MODEL, {"nano_cpus": 1_300_000_000})).predictions_bytes == bytes_before


def test_finds_nothing_where_there_is_nothing(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 5_000, shuffled=True)
    write_fixture_inputs(runner.directory)
    validation = good(runner.run(MODEL)).report["validation"]
    # with four seeds between 0.0018 worse and 0.0003 better than a coin, correlations up to 0.06, by luck alone
    assert validation["logloss"] > signal.coin_toss - 0.003
    assert abs(validation["correlation"]) < 0.12


def test_learns_the_value_of_a_target_with_grades(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    write_fixture_inputs(runner.directory)
    report = good(runner.run(MODEL)).report
    assert report["target"] == "graded"
    # rows at exactly one half among them
    assert report["rows"]["training"] + report["rows"]["held_out"] == 3_000
    assert report["validation"]["correlation"] > 0.1


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    write_fixture_inputs(runner.directory)
    assert good(runner.run(MODEL)).report["validation"]["logloss"] < 0.685


def test_parameters_shape_the_network(runner: Runner) -> None:
    write_tables(runner.directory, five_bins)
    write_fixture_inputs(runner.directory)
    small = {"HIDDEN_LAYERS": "3", "WIDTH": "4", "DROPOUT": "0", "EMBEDDINGS": "none", "ROW_LIMIT": "600"}
    ended = good(runner.run(MODEL, {}, **small, **SHORT))
    # layers of 4, 2 and 1 units on 42 features, each with 4 weights a unit to normalise it, and a last one of 1 + 1
    assert f"training {42 * 4 + 4 * 2 + 2 * 1 + 4 * (4 + 2 + 1) + 2} weights on the cpu …" in ended.lines
    assert ended.report["rows"]["training"] == 600
    assert ended.report["chosen"]["embeddings"] == []


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"DROPOUT": "1"}, "DROPOUT is '1': allowed is a number from 0 to 0.9."),
        ({"MEMORY_LIMIT": "512"}, "MEMORY_LIMIT is 512 MiB, and 3,000 rows of 56 columns need about "),
    ],
)
def test_parameters_have_bounds(runner: Runner, environment: dict[str, str], message: str) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert ended.lines[-1].startswith(f"FAILED (64, bad parameters): {message}")
