"""Bad inputs and a bad disk under the real DAG: told by the task where they arise, and mended by running it again."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from numerai_pipeline import manifests
from numerai_pipeline.manifests import verified_manifest
from numerai_pipeline.run_layout import RunLayout
from tests.containers.conftest import Outcome
from tests.volumes import flip_a_byte, make_read_only, make_writable, small_volume, unmount_all

pytestmark = pytest.mark.containers

RunDag = Callable[..., Outcome]
MIB = 2**20
CHAIN: dict[str, dict[str, Any]] = {
    "xgboost": {},
    "svm": {"tables": "csv"},
    "tsne": {"predicts": False, "outputs": ["tsne/map.txt"], "parameters": {"MODE": "prepare"}},
    "tpot": {"depends_on": ["tsne"]},
}
"""A model of its own, one that is given CSV tables, a preparation, and one after it."""


def results(outcome: Outcome) -> dict[str, tuple[int, bytes]]:
    """Age and content of all that the tasks left for others."""
    kinds = ("*.parquet", "*.csv", "predictions/*.csv", "reports/*.json", "tsne/*.txt")
    return {
        str(path.relative_to(outcome.directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for kind in kinds
        for path in outcome.directory.glob(kind)
        if not path.name.endswith(manifests.SUFFIX)
    }


def made_between(before: dict[str, tuple[int, bytes]], after: dict[str, tuple[int, bytes]]) -> set[str]:
    return {name for name, (age, _) in after.items() if name not in before or before[name][0] != age}


def started(outcome: Outcome) -> int:
    return outcome.output.count("started container")


def after_unzip(do: Callable[[Path], None], data: Path) -> Callable[[DAG], None]:
    """Do something to the run's directory in the moment between `unzip` and the models."""

    def prepare(dag: DAG) -> None:
        def now(_context: Any) -> None:
            [training] = data.glob("rounds/*/*/training.parquet")
            do(training.parent)

        dag.get_task("unzip").on_success_callback = [now]

    return prepare


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data volume; whatever a test mounts there is unmounted."""
    directory = tmp_path / "data"
    directory.mkdir()
    yield directory
    unmount_all(directory)


TABLES = {"training.parquet", "tournament.parquet"}
TURNED: list[tuple[str, set[str], int]] = [
    ("training.parquet", TABLES, 0),
    ("tournament.parquet", TABLES, 0),
    ("predictions/xgboost.csv", {"predictions/xgboost.csv"}, 1),
    ("predictions/tpot.csv", {"predictions/tpot.csv"}, 1),
    ("tsne/map.txt", {"tsne/map.txt", "reports/tsne.json"}, 1),
    ("reports/tsne.json", {"tsne/map.txt", "reports/tsne.json"}, 1),
    ("training.csv", set(), 0),  # nobody reads it, so nobody minds
]
"""Where a byte is turned, which files the next run makes anew, and by how many containers."""


def test_a_turned_byte_costs_only_the_file_it_is_in(run_dag: RunDag) -> None:
    first = run_dag(copy.deepcopy(CHAIN))
    assert (first.state, started(first)) == ("success", 4)
    contents = {name: content for name, (_, content) in results(first).items()}
    for turned, made_anew, containers in TURNED:
        before = results(first)
        flip_a_byte(first.directory / turned)
        again = run_dag(copy.deepcopy(CHAIN))
        mended = results(again)
        assert (again.state, started(again)) == ("success", containers), turned
        assert made_between(before, mended) == made_anew, turned
        for name, content in contents.items():
            assert mended[name][1] == content or (name, made_anew) == (turned, set()), (turned, name)
    # the CSV table is mended as soon as somebody reads it
    before = results(first)
    (first.directory / "predictions" / "svm.csv").unlink()
    again = run_dag(copy.deepcopy(CHAIN))
    assert (again.state, started(again)) == ("success", 1)
    assert made_between(before, results(again)) == {"training.csv", "predictions/svm.csv"}
    assert {name: content for name, (_, content) in results(again).items()} == contents


def test_no_model_starts_on_a_table_with_a_turned_byte(run_dag: RunDag, data: Path) -> None:
    turned = "tournament.parquet"
    spoil = after_unzip(lambda directory: flip_a_byte(directory / turned), data)
    outcome = run_dag({"svm": {"tables": "csv"}, "xgboost": {}}, retries=3, prepare=spoil)
    assert started(outcome) == 0
    assert {name: (str(outcome.tasks[name].state), outcome.tasks[name].try_number) for name in ("svm", "xgboost")} == {
        "svm": ("failed", 1),
        "xgboost": ("failed", 1),
    }
    said = f"{outcome.directory}/{turned}: its content does not match its manifest"
    assert said in outcome.output
    assert "clear `unzip` and run it again" in outcome.output
    again = run_dag({"svm": {"tables": "csv"}, "xgboost": {}})
    assert (again.state, started(again)) == ("success", 2)


def test_a_container_that_dies_over_half_a_file_leaves_no_predictions(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "half"}}, "xgboost": {}})
    assert outcome.state == "failed"
    assert str(outcome.tasks["xgboost"].state) == "success"
    assert "svm: failed (exit code 134): " in outcome.output
    layout = RunLayout(outcome.directory)
    assert verified_manifest(layout.predictions("svm")) is None
    good = results(outcome)["predictions/xgboost.csv"]

    mended = run_dag({"svm": {}, "xgboost": {}})

    assert (mended.state, started(mended)) == ("success", 1)
    assert verified_manifest(layout.predictions("svm"))
    assert results(mended)["predictions/xgboost.csv"] == good


def test_predictions_that_are_no_numbers_are_refused_every_time(run_dag: RunDag) -> None:
    """Whatever manifest the container wrote for them."""
    for _ in range(2):
        outcome = run_dag({"svm": {"parameters": {"MODE": "not a number"}}, "xgboost": {}}, retries=2)
        assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
        assert "svm.csv: row 60 (id n0059) has no prediction: it must lie strictly between 0 and 1" in outcome.output
        assert str(outcome.tasks["xgboost"].state) == "success"
    mended = run_dag({"svm": {}, "xgboost": {}})
    assert (mended.state, started(mended)) == ("success", 1)


def test_a_full_volume_is_told_before_the_work_and_a_run_with_room_goes_on(run_dag: RunDag, data: Path) -> None:
    with small_volume(data, 8 * MIB) as volume:
        outcome = run_dag({"svm": {}, "xgboost": {}})
        assert str(outcome.tasks["unzip"].state) == "failed"
        assert f"needs 67.1 MB on the volume of {data}" in outcome.output
        assert "make room there and try again" in outcome.output
        assert not list(data.rglob("*.part"))
        volume.resize(256 * MIB)
        run_dag({"xgboost": {}})
        whole = {name: age for name, (age, _) in results_in(data).items()}
        filler = volume.fill(left=8 * MIB)
        outcome = run_dag({"svm": {}, "xgboost": {}})
        assert (str(outcome.tasks["svm"].state), str(outcome.tasks["xgboost"].state)) == ("failed", "success")
        assert "svm: what it leaves needs 67.1 MB on the volume of" in outcome.output
        assert started(outcome) == 0
        filler.unlink()
        outcome = run_dag({"svm": {}, "xgboost": {}})
        assert (outcome.state, started(outcome)) == ("success", 1)
        assert {name: age for name, (age, _) in results_in(data).items() if name in whole} == whole


def results_in(data: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes())
        for pattern in ("*.parquet", "predictions/*.csv")
        for path in data.glob(f"rounds/*/*/{pattern}")
    }


def test_a_read_only_volume_is_told_at_once(run_dag: RunDag, data: Path) -> None:
    make_read_only(data)
    outcome = run_dag({"svm": {}}, retries=3)
    assert (str(outcome.tasks["unzip"].state), outcome.tasks["unzip"].try_number) == ("failed", 1)
    assert "its volume is mounted read-only" in outcome.output
    assert "mount it writable, then clear this task" in outcome.output
    make_writable(data)

    # and when it turns read-only under a run
    outcome = run_dag({"svm": {}}, retries=3, prepare=after_unzip(lambda _: make_read_only(data), data))
    assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
    assert "its volume is mounted read-only" in outcome.output
    tables = results_in(data)
    make_writable(data)
    outcome = run_dag({"svm": {}})
    assert (outcome.state, started(outcome)) == ("success", 1)
    assert {name: age for name, (age, _) in results_in(data).items() if name in tables} == {
        name: age for name, (age, _) in tables.items()
    }
