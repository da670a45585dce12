"""Damaged inputs and disk errors in the real DAG: reported by the task, and repaired by the next run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from numerai_pipeline.storage import manifests
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
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
"""An independent model, a model that reads CSV tables, a preprocessing task, and a model after it."""


def results(outcome: Outcome) -> dict[str, tuple[int, bytes]]:
    """Modification time and content of all results of the tasks."""
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
    """Change the run's directory between `unzip` and the models."""

    def prepare(dag: DAG) -> None:
        def now(_context: Any) -> None:
            [training] = data.glob("rounds/*/*/training.parquet")
            do(training.parent)

        dag.get_task("unzip").on_success_callback = [now]

    return prepare


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data volume; mounts of a test are removed afterwards."""
    directory = tmp_path / "data"
    directory.mkdir()
    yield directory
    unmount_all(directory)


TABLES = {"training.parquet", "tournament.parquet"}
FLIPPED: list[tuple[str, set[str], int]] = [
    ("training.parquet", TABLES, 0),
    ("tournament.parquet", TABLES, 0),
    ("predictions/xgboost.csv", {"predictions/xgboost.csv"}, 1),
    ("predictions/tpot.csv", {"predictions/tpot.csv"}, 1),
    ("tsne/map.txt", {"tsne/map.txt", "reports/tsne.json"}, 1),
    ("reports/tsne.json", {"tsne/map.txt", "reports/tsne.json"}, 1),
    ("training.csv", set(), 0),  # no task reads it again
]
"""The file in which a byte is flipped, the files that the next run makes again, and the number of its containers."""


def test_flipped_byte_is_repaired_by_the_task_of_its_file(run_dag: RunDag) -> None:
    first = run_dag(copy.deepcopy(CHAIN))
    assert (first.state, started(first)) == ("success", 4)
    contents = {name: content for name, (_, content) in results(first).items()}
    for flipped, made_again, containers in FLIPPED:
        before = results(first)
        flip_a_byte(first.directory / flipped)
        again = run_dag(copy.deepcopy(CHAIN))
        repaired = results(again)
        assert (again.state, started(again)) == ("success", containers), flipped
        assert made_between(before, repaired) == made_again, flipped
        for name, content in contents.items():
            assert repaired[name][1] == content or (name, made_again) == (flipped, set()), (flipped, name)
    # the CSV table is repaired as soon as a task reads it
    before = results(first)
    (first.directory / "predictions" / "svm.csv").unlink()
    again = run_dag(copy.deepcopy(CHAIN))
    assert (again.state, started(again)) == ("success", 1)
    assert made_between(before, results(again)) == {"training.csv", "predictions/svm.csv"}
    assert {name: content for name, (_, content) in results(again).items()} == contents


def test_table_with_flipped_byte_starts_no_container(run_dag: RunDag, data: Path) -> None:
    flipped = "tournament.parquet"
    damage = after_unzip(lambda directory: flip_a_byte(directory / flipped), data)
    outcome = run_dag({"svm": {"tables": "csv"}, "xgboost": {}}, retries=3, prepare=damage)
    assert started(outcome) == 0
    assert {name: (str(outcome.tasks[name].state), outcome.tasks[name].try_number) for name in ("svm", "xgboost")} == {
        "svm": ("failed", 1),
        "xgboost": ("failed", 1),
    }
    message = f"{outcome.directory}/{flipped}: its content does not match its manifest"
    assert message in outcome.output
    assert "clear `unzip` and run it again" in outcome.output
    again = run_dag({"svm": {"tables": "csv"}, "xgboost": {}})
    assert (again.state, started(again)) == ("success", 2)


def test_container_that_ends_during_a_write_has_no_predictions(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "half"}}, "xgboost": {}})
    assert outcome.state == "failed"
    assert str(outcome.tasks["xgboost"].state) == "success"
    assert "svm: failed (exit code 134): " in outcome.output
    layout = RunLayout(outcome.directory)
    assert verified_manifest(layout.predictions("svm")) is None
    good = results(outcome)["predictions/xgboost.csv"]

    repaired = run_dag({"svm": {}, "xgboost": {}})

    assert (repaired.state, started(repaired)) == ("success", 1)
    assert verified_manifest(layout.predictions("svm"))
    assert results(repaired)["predictions/xgboost.csv"] == good


def test_predictions_with_nan_are_rejected_every_time(run_dag: RunDag) -> None:
    """Also if the container wrote a manifest for them."""
    for _ in range(2):
        outcome = run_dag({"svm": {"parameters": {"MODE": "not a number"}}, "xgboost": {}}, retries=2)
        assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
        assert "svm.csv: row 60 (id n0059) has no prediction: it must lie strictly between 0 and 1" in outcome.output
        assert str(outcome.tasks["xgboost"].state) == "success"
    repaired = run_dag({"svm": {}, "xgboost": {}})
    assert (repaired.state, started(repaired)) == ("success", 1)


def test_full_volume_is_reported_before_a_container_starts(run_dag: RunDag, data: Path) -> None:
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
        assert "svm: its output needs 67.1 MB on the volume of" in outcome.output
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


def test_read_only_volume_fails_the_task_without_retry(run_dag: RunDag, data: Path) -> None:
    make_read_only(data)
    outcome = run_dag({"svm": {}}, retries=3)
    assert (str(outcome.tasks["unzip"].state), outcome.tasks["unzip"].try_number) == ("failed", 1)
    assert "its volume is mounted read-only" in outcome.output
    assert "mount it writable, then clear this task" in outcome.output
    make_writable(data)

    # also if it becomes read-only during a run
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
