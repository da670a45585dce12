"""The pairwise network: what it is defined to be, how it does, what it takes, and how it ends."""

from __future__ import annotations

import numpy as np
import pytest

from numerai_contract.self_test import write_fixture_inputs
from numerai_contract.split import Split, write_split
from numerai_contract.tables import Table
from tests.images.conftest import Runner, five_bins, good, graded, inside, spoilt, write_tables
from tests.images.signals import write_known_signal

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "networks"
MODEL = "pairwise_network"


def test_is_what_it_is_defined_to_be(runner: Runner) -> None:
    found = inside(runner, "pairs.py")
    # the mean over partners is that of a loop over them through the whole network
    assert found["fast"] == pytest.approx(found["loop"], abs=1e-6)
    assert np.std(found["loop"]) > 0.02
    # normalised by themselves, right rows would not show that all of them moved
    assert found["right rows moved"] > 0.1
    for epoch in found["epochs"]:
        # rows 0 to 4 are above, 5 to 11 below; each row above is once left and once right of the same one below
        assert len(epoch) == 10
        assert all(left_is_above == (left < 5) and (left < 5) != (right < 5) for left, right, left_is_above in epoch)
        pairs = {(left, right) for left, right, _ in epoch}
        assert {(right, left) for left, right in pairs} == pairs
        assert len({row for pair in pairs for row in pair}) == 10
    first, second = ({tuple(pair) for pair in epoch} for epoch in found["epochs"])
    assert first != second


def test_beats_a_coin_and_does_the_same_twice(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 5_000)
    write_fixture_inputs(runner.directory)
    ended = good(runner.run(MODEL))
    report = ended.report
    # below a coin's by 0.014 to 0.019 with four seeds
    assert report["validation"]["logloss"] < signal.coin_toss - 0.008
    assert report["validation"]["correlation"] > 0.1
    assert report["rows"] == {"training": 4_500, "held_out": 500, "tournament": 1_100}
    assert report["split"]["rows"] == 500
    chosen = report["chosen"]
    assert chosen["best_epoch"] < chosen["epochs"] < 200
    assert (chosen["width"], chosen["classifier_width"], chosen["partners"]) == (16, 16, 1_000)
    assert chosen["embeddings"] == ["perplexity_30"]
    bytes_before = ended.predictions_bytes
    # less of the processor, so that threads meet in another order
    assert good(runner.run(MODEL, {"nano_cpus": 1_300_000_000})).predictions_bytes == bytes_before


def test_finds_nothing_where_there_is_nothing(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 5_000, shuffled=True)
    write_fixture_inputs(runner.directory)
    validation = good(runner.run(MODEL)).report["validation"]
    # with four seeds between 0.0004 worse and 0.0004 better than a coin, correlations up to 0.03, by luck alone
    assert validation["logloss"] > signal.coin_toss - 0.003
    assert abs(validation["correlation"]) < 0.12


def test_leaves_rows_at_one_half_out_of_its_pairs(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    write_fixture_inputs(runner.directory)
    report = good(runner.run(MODEL)).report
    decided = Table(runner.directory / "training.parquet").targets != 0.5
    assert report["rows"]["training"] + report["rows"]["held_out"] == decided.sum() < 3_000
    assert report["validation"]["correlation"] > 0.1


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    write_fixture_inputs(runner.directory)
    assert good(runner.run(MODEL)).report["validation"]["logloss"] < 0.685


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"PARTNERS": "0"}, "PARTNERS is '0': allowed is a whole number from 1 to 10,000."),
        ({"MEMORY_LIMIT": "512"}, "MEMORY_LIMIT is 512 MiB, and 3,000 rows of 52 columns need about "),
    ],
)
def test_parameters_have_bounds(runner: Runner, environment: dict[str, str], message: str) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert ended.lines[-1].startswith(f"FAILED (64, bad parameters): {message}")


def test_one_class_to_validate_on_is_bad_data(runner: Runner) -> None:
    write_tables(runner.directory)
    write_fixture_inputs(runner.directory)
    table = Table(runner.directory / "training.parquet")
    validation = table.targets > 0.5
    validation[np.flatnonzero(validation)[100:]] = False
    write_split(runner.directory, table.ids, Split(validation.astype(np.float32), validation), None)
    ended = runner.run(MODEL)
    assert ended.code == 65
    assert "every target of the split's validation part is above 0.5" in ended.lines[-1]
