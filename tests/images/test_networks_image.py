"""The networks image: its size, its threads, and special tables."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images.conftest import Runner, assert_succeeded, change_columns, five_bins, graded, write_tables

if TYPE_CHECKING:
    from collections.abc import Callable

    import docker
    from numpy.typing import NDArray

pytestmark = [pytest.mark.containers, pytest.mark.timeout(300)]

IMAGE = "networks"
MODEL = "wide_and_deep"
# for tests that are not about the quality of the model
SHORT = {"MAX_EPOCHS": "4"}


def test_wide_and_deep_largest_seed_is_accepted(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, graded)
    bytes_before = assert_succeeded(runner.run(MODEL, {}, **SHORT)).predictions_bytes
    # some libraries accept 31 bits only
    assert assert_succeeded(runner.run(MODEL, {}, SEED="4294967295", **SHORT)).predictions_bytes != bytes_before


def _constant_feature11(matrix: NDArray[Any]) -> NDArray[Any]:
    changed = matrix.copy()
    changed[:, 10] = 0
    return changed


def test_wide_and_deep_feature_constant_in_training_has_no_effect(runner: Runner) -> None:
    write_tables(runner.directory, five_bins, modify=_constant_feature11)
    before = list(assert_succeeded(runner.run(MODEL, {}, **SHORT)).predictions.values())
    path = runner.directory / "tournament.parquet"
    table = pq.read_table(path)
    with_missing = pa.array([None, *table["feature1"].to_pylist()[1:]], type=pa.int8())
    change_columns(path, feature1=with_missing, feature11=pa.array([4] * len(table), type=pa.int8()))
    finished = assert_succeeded(runner.run(MODEL, {}, **SHORT))
    assert any(line.startswith("tournament.parquet: ") and "(float32)" in line for line in finished.lines)
    first, *others = finished.predictions.values()
    assert others == pytest.approx(before[1:], abs=1e-6)
    assert abs(first - before[0]) < 0.5


def test_wide_and_deep_parameters_and_other_user_succeed(runner: Runner) -> None:
    write_tables(runner.directory, five_bins)
    small = {"HIDDEN_LAYERS": "1", "WIDTH": "3", "DROPOUT": "0", "WIDE_CROSSES": "0", "EMBARGO": "0"}
    restricted: dict[str, Any] = {"pids_limit": 64} | ({"user": "54321:54321"} if os.getuid() == 0 else {})
    finished = assert_succeeded(runner.run(MODEL, restricted, **small, **SHORT))
    # wide 42 + 1; hidden 3 x 42, and 4 x 3 of its normalisation; output 3
    assert "training 184 weights on the cpu …" in finished.lines
    assert finished.report["rows"]["training"] == (60 - 12) * 50


def test_wide_and_deep_endless_training_uses_threads_and_stops(runner: Runner) -> None:
    write_tables(runner.directory)
    endless = {"MAX_EPOCHS": "100000", "PATIENCE": "100000", "LEARNING_RATE": "0.000001"}
    container = runner.start(MODEL, {}, THREADS="3", **endless)
    next(line for line in container.logs(stream=True) if b"[  0 %] epoch " in line and b"held-out logloss 0." in line)
    output = container.exec_run(["sh", "-c", "cat /proc/[0-9]*/task/*/comm"]).output
    assert isinstance(output, bytes)
    assert output.decode().split().count("tf_XLAEigen") == 3
    began = time.monotonic()
    container.stop(timeout=10)
    assert time.monotonic() - began < 3
    finished = runner.wait(container, MODEL)
    assert finished.code == 75
    assert "stopped by SIGTERM while training " in finished.lines[-1]
    assert any(line.endswith(" left") for line in finished.lines)
    assert not (runner.directory / "predictions" / f"{MODEL}.csv").exists()


def test_image_is_small_and_has_no_cuda(engine: docker.DockerClient, model_image: Callable[[str], str]) -> None:
    image = engine.images.get(model_image("networks"))
    assert image.attrs["Size"] < 1_000_000_000
    command = "find /usr/local/lib -iname '*nvidia*' -o -iname '*cuda*.so*'"
    assert engine.containers.run(image, ["-c", command], entrypoint="sh", remove=True, network_mode="none") == b""
