"""The networks image: what is in it, how its models do, and how they end."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images.conftest import Runner, binary, five_bins, good, graded, spoilt, write_tables
from tests.images.signals import write_known_signal

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker
    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "networks"
MODEL = "wide_and_deep"
# enough for a test that is not about how good the model is
SHORT = {"MAX_EPOCHS": "4"}


def test_beats_a_coin_by_what_can_be_learned_and_the_same_way_twice(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 20_000)
    ended = good(runner.run(MODEL, INPUTS="0f3a"))
    report = ended.report
    # below a coin's by 0.018 to 0.020 with four seeds, by 0.037 when learned from 50,000 rows
    assert report["validation"]["logloss"] < signal.coin_toss - 0.012
    assert report["validation"]["consistency"] >= 0.7
    assert report["validation"]["correlation"] > 0.15
    assert report["rows"] == {"training": 14_400, "held_out": 4_000, "tournament": 4_100}
    chosen = report["chosen"]
    assert chosen["embargo_eras"] == 8
    assert chosen["best_epoch"] < chosen["epochs"] < 100
    assert (chosen["hidden_layers"], chosen["width"], chosen["wide_crosses"]) == (6, 50, 20)
    assert chosen["device"] == "cpu"
    assert {"keras", "jax", "jaxlib"} <= report["libraries"].keys()
    assert f"best held-out logloss {chosen['best_held_out_logloss']:.5f}" in report["notes"][-1]
    assert '"inputs": "0f3a"' in (runner.directory / f"predictions/{MODEL}.csv.manifest.json").read_text()
    bytes_before = ended.predictions_bytes
    # less of the processor, so that threads meet in another order
    assert good(runner.run(MODEL, {"nano_cpus": 1_300_000_000})).predictions_bytes == bytes_before


def test_finds_nothing_where_there_is_nothing(runner: Runner) -> None:
    signal = write_known_signal(runner.directory, 20_000, shuffled=True)
    validation = good(runner.run(MODEL)).report["validation"]
    # with four seeds between 0.0006 worse and 0.0002 better than a coin, by luck alone
    assert validation["logloss"] > signal.coin_toss - 0.003
    assert abs(validation["correlation"]) < 0.08


def test_takes_five_bins_and_grades_and_any_seed(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    ended = good(runner.run(MODEL))
    assert "42 features (int8)" in ended.lines[0]
    assert ended.report["target"] == "graded"
    assert ended.report["validation"]["correlation"] > 0.1
    # rows at exactly one half among them: what is learned is the value
    assert ended.report["rows"]["held_out"] == 12 * 50
    assert ended.report["rows"]["training"] == (60 - 12 - 6) * 50
    bytes_before = ended.predictions_bytes
    # the largest there is: some libraries take 31 bits only
    assert good(runner.run(MODEL, {}, SEED="4294967295", **SHORT)).predictions_bytes != bytes_before


def _medium(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    """Features like today's medium set: 780 of them."""
    return random.integers(0, 5, (rows, 780), dtype=np.int8)


def test_takes_780_features_and_samples_above_its_row_limit(runner: Runner) -> None:
    write_tables(runner.directory, _medium, graded)
    ended = good(runner.run(MODEL, {}, ROW_LIMIT="600", **SHORT))
    assert ended.report["features"] == 780
    rows = ended.report["rows"]
    assert rows["held_out"] == pytest.approx(600 * 0.2, abs=12)
    assert rows["training"] == pytest.approx(600 * 0.7, abs=18)
    assert "learning from 600 of 3,000 rows, drawn evenly from all eras (ROW_LIMIT)" in ended.report["notes"]


def test_takes_missing_and_constant_features(runner: Runner) -> None:
    write_tables(runner.directory, spoil=spoilt)
    assert good(runner.run(MODEL)).report["validation"]["logloss"] < 0.685


def _without_the_eleventh(matrix: NDArray[Any]) -> NDArray[Any]:
    still = matrix.copy()
    still[:, 10] = 0
    return still


def test_eight_bit_features_may_have_holes_or_move_for_the_first_time_in_the_tournament(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, spoil=_without_the_eleventh)
    before = list(good(runner.run(MODEL, {}, **SHORT)).predictions.values())
    path = runner.directory / "tournament.parquet"
    table = pq.read_table(path)
    for name, column in {
        "feature1": [None, *table["feature1"].to_pylist()[1:]],
        "feature11": [4] * len(table),
    }.items():
        table = table.set_column(table.schema.get_field_index(name), name, pa.array(column, type=pa.int8()))
    pq.write_table(table, path)
    ended = good(runner.run(MODEL, {}, **SHORT))
    assert any(line.startswith("tournament.parquet: ") and "(float32)" in line for line in ended.lines)
    first, *others = ended.predictions.values()
    assert others == pytest.approx(before[1:], abs=1e-6)
    assert abs(first - before[0]) < 0.5


def test_parameters_shape_the_network_and_any_user_will_do(runner: Runner) -> None:
    write_tables(runner.directory, five_bins)
    small = {"HIDDEN_LAYERS": "1", "WIDTH": "3", "DROPOUT": "0", "WIDE_CROSSES": "0", "EMBARGO_ERAS": "0"}
    frugal: dict[str, Any] = {"pids_limit": 64} | ({"user": "54321:54321"} if os.getuid() == 0 else {})
    ended = good(runner.run(MODEL, frugal, **small, **SHORT))
    # wide 42 + 1; hidden 3 x 42, and 4 x 3 to normalise it; output 3
    assert "training 184 weights on the cpu …" in ended.lines
    assert ended.report["rows"]["training"] == (60 - 12) * 50


@pytest.mark.parametrize(
    ("environment", "last_line"),
    [
        ({"WIDE_CROSSES": "51"}, "WIDE_CROSSES is '51': allowed is a whole number from 0 to 50."),
        ({"DROPOUT": "1"}, "DROPOUT is '1': allowed is a number from 0 to 0.9."),
    ],
)
def test_parameters_have_bounds(runner: Runner, environment: dict[str, str], last_line: str) -> None:
    write_tables(runner.directory)
    ended = runner.run(MODEL, {}, **environment)
    assert ended.code == 64
    assert ended.lines[-1].startswith(f"FAILED (64, bad parameters): {last_line}")


def test_one_class_is_bad_data(runner: Runner) -> None:
    write_tables(runner.directory, target=lambda chance, random: binary(np.ones_like(chance), random))
    ended = runner.run(MODEL)
    assert ended.code == 65
    assert ended.lines[-1].startswith("FAILED (65, bad data): training.parquet: column 'target' ")


def test_keeps_to_its_threads_says_how_far_it_is_and_stops_within_3_s(runner: Runner) -> None:
    write_tables(runner.directory)
    endless = {"MAX_EPOCHS": "100000", "PATIENCE": "100000", "LEARNING_RATE": "0.000001"}
    container = runner.start(MODEL, {}, THREADS="3", **endless)
    next(line for line in container.logs(stream=True) if b"[  0 %] epoch " in line and b"held-out logloss 0." in line)
    said = container.exec_run(["sh", "-c", "cat /proc/[0-9]*/task/*/comm"]).output
    assert isinstance(said, bytes)
    assert said.decode().split().count("tf_XLAEigen") == 3
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    ended = runner.ended(container, MODEL)
    assert ended.code == 75
    assert "stopped by SIGTERM while training " in ended.lines[-1]
    assert any(line.endswith(" left") for line in ended.lines)
    assert not (runner.directory / "predictions" / f"{MODEL}.csv").exists()


def test_the_image_is_small_and_brings_no_cuda(engine: docker.DockerClient, model_image: Callable[[str], str]) -> None:
    image = engine.images.get(model_image("networks"))
    assert image.attrs["Size"] < 1_000_000_000
    look = "find /usr/local/lib -iname '*nvidia*' -o -iname '*cuda*.so*'"
    assert engine.containers.run(image, ["-c", look], entrypoint="sh", remove=True, network_mode="none") == b""
