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


Files = dict[str, tuple[int, bytes]]


def files_in(data: Path) -> Files:
    """Modification time and content of all tables and results of a data volume."""
    return {
        str(path.relative_to(data)): (path.stat().st_mtime_ns, path.read_bytes())
        for folder in ("datasets", "results")
        for path in (data / folder).rglob("[!.]*")
        if path.is_file()
        and not path.name.endswith(manifests.SUFFIX)
        and path.name not in ("result.json", "dataset.json")
    }


def made_between(before: Files, after: Files) -> set[str]:
    return {name for name, (age, _) in after.items() if name not in before or before[name][0] != age}


def started(outcome: Outcome) -> int:
    return outcome.output.count("started container")


def after_unzip(do: Callable[[], object]) -> Callable[[DAG], None]:
    """Change the data volume between `unzip` and the models."""

    def prepare(dag: DAG) -> None:
        def now(_context: Any) -> None:
            do()

        dag.get_task("unzip").on_success_callback = [now]

    return prepare


@pytest.fixture
def data(tmp_path: Path) -> Iterator[Path]:
    """The data volume; mounts of a test are removed afterwards."""
    directory = tmp_path / "data"
    directory.mkdir()
    yield directory
    unmount_all(directory)


TABLES = ("datasets/*/training.parquet", "datasets/*/validation.parquet")
FIT = ("model.json", "report.json", "saved/state.json")
FLIPPED: list[tuple[str, tuple[str, ...], int]] = [
    (TABLES[0], TABLES, 0),
    (TABLES[1], TABLES, 0),
    ("results/xgboost/*/predictions/xgboost.csv", ("results/xgboost/*/predictions/xgboost.csv",), 1),
    ("results/tpot/*/validation.csv", tuple(f"results/tpot/*/{name}" for name in ("validation.csv", *FIT)), 1),
    ("results/svm/*/predictions/svm.csv", ("results/svm/*/validation.csv", "results/svm/*/predictions/svm.csv"), 1),
    ("results/tsne/*/tsne/map.txt", tuple(f"results/tsne/*/{name}" for name in ("tsne/map.txt", *FIT)), 1),
    ("results/tsne/*/report.json", tuple(f"results/tsne/*/{name}" for name in ("tsne/map.txt", *FIT)), 1),
]
"""The file in which a byte is flipped, the files that the next run makes again, and the number of its containers."""


def matching(data: Path, *patterns: str) -> set[str]:
    return {str(path.relative_to(data)) for pattern in patterns for path in data.glob(pattern)}


def test_flipped_byte_is_repaired_by_the_task_of_its_file(run_dag: RunDag, data: Path) -> None:
    first = run_dag(copy.deepcopy(CHAIN))
    assert (first.state, started(first)) == ("success", 4), first.output
    [csv_table] = matching(data, "datasets/*/training.csv")
    contents = {name: content for name, (_, content) in files_in(data).items() if name != csv_table}
    for flipped, made_again, containers in FLIPPED:
        before = files_in(data)
        [path] = data.glob(flipped)
        flip_a_byte(path)
        again = run_dag(copy.deepcopy(CHAIN))
        repaired = files_in(data)
        repaired.pop(csv_table, None)
        assert (again.state, started(again)) == ("success", containers), flipped
        # an image of 2018 needs the table of the damaged result again
        assert made_between(before, repaired) == matching(data, *made_again), flipped
        assert {name: content for name, (_, content) in repaired.items()} == contents, flipped
    # the CSV table is repaired as soon as a task reads it
    flip_a_byte(data / csv_table)
    before = files_in(data)
    again = run_dag(copy.deepcopy(CHAIN))
    assert (again.state, started(again), files_in(data)) == ("success", 0, before)
    again = run_dag(copy.deepcopy(CHAIN), models=["svm"], force=True)
    assert (again.state, started(again)) == ("success", 1)
    assert verified_manifest(data / csv_table)


@pytest.mark.parametrize("table", TABLES)
def test_table_with_flipped_byte_starts_no_container(run_dag: RunDag, data: Path, table: str) -> None:
    damaged: list[Path] = []

    def damage() -> None:
        damaged.extend(data.glob(table))
        flip_a_byte(damaged[0])

    models: dict[str, dict[str, Any]] = {"svm": {"tables": "csv"}, "xgboost": {}}
    outcome = run_dag(copy.deepcopy(models), retries=3, prepare=after_unzip(damage))
    assert started(outcome) == 0
    assert {name: (str(outcome.tasks[name].state), outcome.tasks[name].try_number) for name in models} == {
        "svm": ("failed", 1),
        "xgboost": ("failed", 1),
    }
    message = f"{damaged[0]}: its content does not match its manifest"
    assert message in outcome.output
    assert "clear `unzip` and run it again" in outcome.output
    again = run_dag(copy.deepcopy(models))
    assert (again.state, started(again)) == ("success", 2)


def test_container_that_ends_during_a_write_has_no_results(run_dag: RunDag, data: Path) -> None:
    for keeps_model in (True, False):
        spoilt = {"svm": {"keeps_model": keeps_model, "parameters": {"MODE": "half"}}, "xgboost": {}}
        outcome = run_dag(spoilt)
        assert outcome.state == "failed"
        assert str(outcome.tasks["xgboost"].state) == "success"
        assert "svm: failed (exit code 134): " in outcome.output
        layout = RunLayout(outcome.directory)
        assert not layout.predictions("svm").exists()
        assert matching(data, "results/svm/*") == set()
    good = {name: age for name, age in files_in(data).items() if "xgboost" in name}
    repaired = run_dag({"svm": {}, "xgboost": {}})
    assert (repaired.state, started(repaired)) == ("success", 1)
    assert verified_manifest(RunLayout(repaired.directory).predictions("svm"))
    assert {name: age for name, age in files_in(data).items() if "xgboost" in name} == good


def test_predictions_with_nan_are_rejected_every_time(run_dag: RunDag) -> None:
    """Also if the container wrote a manifest for them."""
    for fits in (True, False):
        outcome = run_dag({"svm": {"parameters": {"MODE": "not a number"}}, "xgboost": {}}, retries=2)
        assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
        assert "svm.csv: row 20 (id n0059) has no prediction: it must lie strictly between 0 and 1" in outcome.output
        assert str(outcome.tasks["xgboost"].state) == "success"
        # the fit itself was finished
        assert ("predicting with a finished fit" in outcome.output) != fits
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
        whole = files_in(data)
        outcome = run_dag({"svm": {}, "xgboost": {}}, prepare=after_unzip(lambda: volume.fill(left=8 * MIB)))
        assert (str(outcome.tasks["svm"].state), str(outcome.tasks["xgboost"].state)) == ("failed", "success")
        assert "svm: its output needs 67.1 MB on the volume of" in outcome.output
        assert started(outcome) == 0
        (data / "other_data").unlink()
        outcome = run_dag({"svm": {}, "xgboost": {}})
        assert (outcome.state, started(outcome)) == ("success", 1)
        assert {name: age for name, age in files_in(data).items() if name in whole} == whole


def test_read_only_volume_fails_the_task_without_retry(run_dag: RunDag, data: Path) -> None:
    make_read_only(data)
    outcome = run_dag({"svm": {}}, retries=3)
    assert (str(outcome.tasks["unzip"].state), outcome.tasks["unzip"].try_number) == ("failed", 1)
    assert "its volume is mounted read-only" in outcome.output
    assert "mount it writable, then clear this task" in outcome.output
    make_writable(data)

    # also if it becomes read-only during a run
    outcome = run_dag({"svm": {}}, retries=3, prepare=after_unzip(lambda: make_read_only(data)))
    assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
    assert "its volume is mounted read-only" in outcome.output
    tables = files_in(data)
    make_writable(data)
    outcome = run_dag({"svm": {}})
    assert (outcome.state, started(outcome)) == ("success", 1)
    assert {name: age for name, age in files_in(data).items() if name in tables} == tables
