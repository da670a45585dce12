"""Runs that share results: each is made once, never changes, and belongs only to the runs that have its key."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import docker
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docker.models.containers import Container

from launcher.processes import wait_until
from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.result_trigger import ResultTrigger
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import verified_manifest, write_manifest
from numerai_pipeline.storage.results import ResultInfo, ResultStore
from numerai_pipeline.storage.run_metadata import RunMetadata
from numerai_pipeline.storage.task_records import TaskRecord, read_record
from tests.containers.attempts import Attempt, Outcome, UnpackedRun, execute, operator_of, unpack
from tests.containers.conftest import NEXT_LIVE_IDS, log_on_stdout, stub_registry
from tests.volumes import flip_a_byte

pytestmark = pytest.mark.containers

Snapshot = dict[str, tuple[str | None, int, bytes]]
FITTING, PREDICTING_ONLY = "fitting on", "predicting with a finished fit"


def snapshot(directory: Path) -> Snapshot:
    """Return all files of a directory: path → target of the link, inode and bytes of the file."""
    return {
        str(path.relative_to(directory)): (
            str(path.readlink()) if path.is_symlink() else None,
            path.stat().st_ino,
            path.read_bytes(),
        )
        for path in directory.rglob("*")
        if path.is_file()
    }


@dataclass
class Deployment:
    """A data volume and an engine, without an Airflow around them."""

    engine: docker.DockerClient
    stub_images: Path
    archive: Path
    folder: Path
    capture: Callable[[], str]
    images: Path = Path()

    @property
    def store(self) -> ResultStore:
        return ResultStore(DataLayout(load_settings().data_dir))

    def define(self, tasks: dict[str, dict[str, Any]]) -> None:
        """Write the registry of the next attempts."""
        self.images = stub_registry(self.stub_images, self.folder, copy.deepcopy(tasks))

    def unpack(self, run_id: str, **parameters: Any) -> UnpackedRun:
        return unpack(self.archive, run_id, **parameters)

    def attempt(self, run: UnpackedRun, task: str = "svm", *, number: int = 1, resumes: bool = False) -> Outcome:
        """Run an attempt in this process."""
        self.capture()
        with log_on_stdout():
            state, detail = execute(operator_of(self.images, task), run, number, resumes=resumes)
        return Outcome(state, detail, self.capture())

    def begin(self, run: UnpackedRun, task: str = "svm", **more: Any) -> Attempt:
        """Start an attempt in a process."""
        number = len(list(self.folder.glob("attempt-*")))
        return Attempt(self.images, run, task, self.folder / f"attempt-{number}", **more)

    def containers(self) -> list[Container]:
        label = f"numerai={installation_id(load_settings().data_dir)}"
        # one of them may be removed at this moment
        return list(self.engine.containers.list(all=True, filters={"label": label}, ignore_removed=True))

    def waiting_container(self) -> Container:
        """Return the only container, which waits for `go`."""

        def waits() -> bool:
            with contextlib.suppress(docker.errors.APIError):
                return [b"waiting" in each.logs() for each in self.containers()] == [True]
            return False

        assert wait_until(waits, 60, every=0.05)
        return self.containers()[0]

    def results(self, task: str = "svm") -> dict[str, ResultInfo]:
        """Return the results of a task by their kind; there is at most one of each."""
        folder = self.store.path(task, "any").parent
        found = [self.store.read(task, path.name) for path in folder.glob("[!.]*")] if folder.is_dir() else []
        assert len({each.kind for each in found}) == len(found)
        return {each.kind: each for each in found}

    def leftovers(self) -> list[str]:
        """List containers and the files of workspaces."""
        work = load_settings().data_dir / "work"
        files = [str(path.relative_to(work)) for path in work.glob("*/*/*")]
        return [*files, *(str(each.id) for each in self.containers())]


def go(container: Container) -> None:
    assert container.exec_run(["touch", "/tmp/go"]).exit_code == 0  # noqa: S108 - a path of the container


def record_of(run: UnpackedRun, task: str = "svm") -> TaskRecord:
    found = read_record(run.layout, task)
    assert found is not None
    return found


def predictions_of(run: UnpackedRun, task: str = "svm") -> bytes:
    return run.layout.predictions(task).read_bytes()


def with_next_live_rows(run: UnpackedRun) -> UnpackedRun:
    """Replace the live rows of an unpacked run by those of a later round."""
    table = pq.read_table(run.layout.live)
    rows = pa.concat_tables([table, table.slice(0, 1)]).set_column(0, "id", pa.array(NEXT_LIVE_IDS))
    pq.write_table(rows, run.layout.live)
    sha256 = write_manifest(run.layout.live, rows=rows.num_rows, columns=rows.column_names).sha256
    more = json.loads(run.layout.run_metadata.read_text())
    replace(RunMetadata.read(run.layout), live_sha256=sha256).write(run.layout, more)
    return run


def wait_for_result(trigger: dict[str, Any]) -> None:
    """Run the trigger of a deferred attempt until it fires, as the triggerer does."""

    async def fire() -> None:
        async for _event in ResultTrigger(trigger["task_name"], trigger["key"]).run():
            return

    asyncio.run(asyncio.wait_for(fire(), 60))


@pytest.fixture
def deployment(
    engine: docker.DockerClient, stub_images: Path, archive: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Deployment:
    return Deployment(engine, stub_images, archive, tmp_path, lambda: "".join(capfd.readouterr()))


@pytest.mark.parametrize("keeps_model", [True, False])
def test_equal_settings_use_the_finished_results(deployment: Deployment, keeps_model: bool) -> None:
    deployment.define({"svm": {"keeps_model": keeps_model}})
    first, second = deployment.unpack("one"), deployment.unpack("two")
    assert deployment.attempt(first).started == 1
    again = deployment.attempt(second)
    assert (again.state, again.started) == ("success", 0)
    assert f"up to date: fit {record_of(first).fit} of round archive" in again.output
    assert first.directory != second.directory
    assert record_of(first) == record_of(second)
    assert predictions_of(first) == predictions_of(second)
    assert deployment.leftovers() == []


def test_new_live_rows_start_a_container_that_only_predicts(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    deployment.define({"svm": {}})
    first, second = deployment.unpack("one"), with_next_live_rows(deployment.unpack("two"))
    assert FITTING in deployment.attempt(first).output
    later = deployment.attempt(second)
    assert (later.state, later.started) == ("success", 1)
    assert FITTING not in later.output
    assert f"{PREDICTING_ONLY}; tables of a fit: none" in later.output
    assert "mounted: live, live.parquet, live.parquet.manifest.json, model, predictions, reports" in later.output
    made = record_of(second)
    assert record_of(first).fit == made.fit
    assert record_of(first).prediction != made.prediction
    # as a run that fits and predicts these rows
    monkeypatch.setenv("NUMERAI_DATA_DIR", str(tmp_path / "other"))
    load_settings.cache_clear()
    alone = with_next_live_rows(deployment.unpack("three"))
    assert FITTING in deployment.attempt(alone).output
    assert record_of(alone) == replace(made, fitted_at=record_of(alone).fitted_at)
    only_predicted = tmp_path / "data" / second.directory / "predictions" / "svm.csv"
    assert predictions_of(alone) == only_predicted.read_bytes()


def test_new_live_rows_train_an_image_that_keeps_no_model(deployment: Deployment) -> None:
    deployment.define({"svm": {"keeps_model": False}})
    first, second = deployment.unpack("one"), with_next_live_rows(deployment.unpack("two"))
    for run in (first, second):
        assert deployment.attempt(run).started == 1
    assert record_of(first).fit != record_of(second).fit
    assert predictions_of(second).startswith(b"id,prediction\nm0000,")


def test_forced_run_changes_nothing_of_the_first_run(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait at fit"}}})
    first, forced = deployment.unpack("one"), deployment.unpack("two", force=True)
    attempt = deployment.begin(first)
    go(deployment.waiting_container())
    assert attempt.outcome().state == "success"
    before = snapshot(first.layout.directory)
    attempt = deployment.begin(forced)
    waiting: Container | None = None
    while attempt.process.poll() is None:
        # at every moment: while the container starts, runs, ends, and its results are collected
        assert snapshot(first.layout.directory) == before
        for container in deployment.containers() if waiting is None else ():
            if b"waiting" in container.logs():
                waiting = container
                go(waiting)
    assert attempt.outcome().started == 1
    assert snapshot(first.layout.directory) == before
    assert {record_of(first).fit, record_of(first).prediction}.isdisjoint(
        {record_of(forced).fit, record_of(forced).prediction}
    )
    # another attempt of the forced run uses the results that it made
    assert deployment.attempt(forced, number=2).started == 0


MODELS: dict[str, dict[str, Any]] = {
    "svm": {},
    "xgboost": {},
    "ensemble": {
        "predicts": False,
        "depends_on": ["models"],
        "outputs": ["validation/ensemble_mean.csv"],
        "live_outputs": ["predictions/ensemble_mean.csv"],
        "parameters": {"MODE": "combine"},
    },
}


def test_deselected_model_is_not_in_the_ensemble_of_the_second_run(deployment: Deployment) -> None:
    deployment.define(MODELS)
    first = replace(deployment.unpack("one"), states={"svm": "success", "xgboost": "success"})
    for task in MODELS:
        outcome = deployment.attempt(first, task)
    assert "validation of: svm, xgboost." in outcome.output
    assert "predictions of: svm, xgboost." in outcome.output
    before = snapshot(first.layout.directory)
    second = replace(deployment.unpack("two", models=["svm"]), states={"svm": "success", "xgboost": "skipped"})
    assert deployment.attempt(second).started == 0
    outcome = deployment.attempt(second, "ensemble")
    assert (outcome.state, outcome.started) == ("success", 1)
    assert "validation of: svm." in outcome.output
    assert "predictions of: svm." in outcome.output
    ensemble = second.layout.predictions("ensemble_mean").read_text().splitlines()
    assert [float(line.partition(",")[2]) for line in ensemble[1:]] == pytest.approx(
        [float(line.partition(",")[2]) for line in predictions_of(second).decode().splitlines()[1:]]
    )
    assert not second.layout.predictions("xgboost").exists()
    assert snapshot(first.layout.directory) == before


def test_ensemble_of_finished_weights_only_combines_new_live_rows(deployment: Deployment) -> None:
    deployment.define(MODELS)
    states = {"svm": "success", "xgboost": "success"}
    first = replace(deployment.unpack("one"), states=states)
    second = replace(with_next_live_rows(deployment.unpack("two")), states=states)
    for run in (first, second):
        for task in MODELS:
            outcome = deployment.attempt(run, task)
    assert PREDICTING_ONLY in outcome.output
    assert "validation of:" not in outcome.output
    assert record_of(first, "ensemble").fit == record_of(second, "ensemble").fit
    assert second.layout.predictions("ensemble_mean").read_text().splitlines()[1].startswith("m0000,")


def test_concurrent_runs_with_equal_settings_make_the_result_once(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait before predict"}}})
    first, second = deployment.unpack("one"), deployment.unpack("two")
    making = deployment.begin(first)
    container = deployment.waiting_container()
    waiting = deployment.begin(second).outcome()
    assert (waiting.state, waiting.started) == ("deferred", 0)
    assert waiting.detail["method"] == "execute_again"
    assert [each.id for each in deployment.containers()] == [container.id]
    assert not second.layout.predictions("svm").exists()
    go(container)
    wait_for_result(waiting.detail)
    made = making.outcome()
    assert (made.state, made.started) == ("success", 1)
    resumed = deployment.attempt(second, resumes=True)
    assert (resumed.state, resumed.started) == ("success", 0)
    assert record_of(first) == record_of(second)
    assert deployment.leftovers() == []


def test_concurrent_runs_with_different_settings_have_own_results(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait before predict"}}})
    runs = [deployment.unpack("one"), deployment.unpack("two", seed=6), deployment.unpack("three", force=True)]
    attempts = [deployment.begin(run) for run in runs]
    for attempt in attempts:
        attempt.wait_for("waiting")
    assert len(deployment.containers()) == len(runs)
    for container in deployment.containers():
        go(container)
    assert [(each.outcome().state, each.outcome().started) for each in attempts] == [("success", 1)] * 3
    keys = [key for run in runs for key in (record_of(run).fit, record_of(run).prediction)]
    assert len(set(keys)) == len(keys)
    assert predictions_of(runs[0]) != predictions_of(runs[1])
    assert predictions_of(runs[0]) == predictions_of(runs[2])


def test_run_reattaches_to_the_container_of_a_killed_run(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait before predict"}}})
    first, second = deployment.unpack("one"), deployment.unpack("two")
    killed = deployment.begin(first)
    container = deployment.waiting_container()
    waiting = deployment.begin(second).outcome()
    killed.kill()
    wait_for_result(waiting.detail)
    following = deployment.begin(second, resumes=True)
    following.wait_for("reattaching to container")
    # the killed run's next attempt leaves it to the other run
    assert deployment.begin(first, number=2).outcome().state == "deferred"
    go(container)
    assert (following.outcome().state, following.outcome().started) == ("success", 0)
    assert deployment.attempt(first, number=2, resumes=True).started == 0
    assert record_of(first) == record_of(second)
    assert deployment.leftovers() == []


def test_run_starts_its_own_container_after_another_is_ended(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait at fit"}}})
    first, second = deployment.unpack("one"), deployment.unpack("two")
    ended = deployment.begin(first)
    container = deployment.waiting_container()
    waiting = deployment.begin(second).outcome()
    assert waiting.state == "deferred"
    ended.process.terminate()
    assert "stopped on Airflow's request" in ended.outcome().detail
    assert container.id not in {each.id for each in deployment.containers()}
    wait_for_result(waiting.detail)
    own = deployment.begin(second, resumes=True)
    go(deployment.waiting_container())
    assert (own.outcome().state, own.outcome().started) == ("success", 1)
    assert read_record(first.layout, "svm") is None
    assert deployment.leftovers() == []


def test_start_removes_the_container_of_a_lost_worker(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait at fit"}}, "xgboost": {}})
    run = deployment.unpack("one")
    lost = deployment.begin(run)
    container = deployment.waiting_container()
    lost.kill()
    # the next attempt, on the engine of another worker
    key = container.labels["numerai.key"]
    workspace = Workspace(DataLayout(load_settings().data_dir).work("svm", key), {})
    workspace.prepare(container.attrs["Config"]["User"])
    workspace.record_container("on another engine")
    started = deployment.attempt(run, "xgboost")
    assert (started.state, started.started) == ("success", 1)
    assert f"removing container {str(container.id)[:12]}" in started.output
    assert deployment.containers() == []


def test_second_airflow_leaves_the_container_of_the_first(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait at fit"}}})
    first, second = deployment.unpack("one"), deployment.unpack("two")
    killed = deployment.begin(first)
    container = deployment.waiting_container()
    killed.kill()
    monkeypatch.setenv("AIRFLOW_VAR_NUMERAI_DEPLOYMENT", "another")
    own = deployment.begin(second)
    own.wait_for("waiting")
    (own_container,) = {each.id for each in deployment.containers()} - {container.id}
    go(deployment.engine.containers.get(str(own_container)))
    assert (own.outcome().state, own.outcome().started) == ("success", 1)
    assert [each.id for each in deployment.containers()] == [container.id]
    made = deployment.results()
    # it continues in another workspace, which is removed
    go(container)
    container.wait()
    assert deployment.results() == made
    container.remove()
    assert deployment.leftovers() == []


@pytest.mark.parametrize(("mode", "fits_again"), [("wait at fit", True), ("wait before predict", False)])
def test_killed_container_continues_from_a_finished_fit(deployment: Deployment, mode: str, fits_again: bool) -> None:
    deployment.define({"svm": {"parameters": {"MODE": mode}}})
    run = deployment.unpack("one")
    first = deployment.begin(run)
    deployment.waiting_container().kill()
    assert first.outcome().state == "failed"
    assert deployment.results() == {}
    second = deployment.begin(run, number=2)
    go(deployment.waiting_container())
    assert second.outcome().state == "success"
    assert (FITTING in second.output, PREDICTING_ONLY in second.output) == (fits_again, not fits_again)
    assert set(deployment.results()) == {"fit", "prediction"}
    assert deployment.leftovers() == []


def test_killed_prediction_predicts_again_and_fits_never(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait before predict"}}})
    first, second = deployment.unpack("one"), with_next_live_rows(deployment.unpack("two"))
    attempt = deployment.begin(first)
    go(deployment.waiting_container())
    assert attempt.outcome().state == "success"
    attempt = deployment.begin(second)
    deployment.waiting_container().kill()
    assert attempt.outcome().state == "failed"
    attempt = deployment.begin(second, number=2)
    go(deployment.waiting_container())
    assert attempt.outcome().state == "success"
    assert FITTING not in attempt.output
    assert record_of(first).fit == record_of(second).fit
    assert deployment.leftovers() == []


PUBLISH = "numerai_pipeline.storage.results:ResultStore.publish"
RECORD = "numerai_pipeline.containers.result_collection:write_record"


@pytest.mark.parametrize(
    ("step", "finished", "started"),
    [
        ((PUBLISH, 1), {"fit"}, 1),
        ((PUBLISH, 2), {"fit", "prediction"}, 0),
        (("numerai_pipeline.containers.workspace:Workspace.remove", 1), {"fit", "prediction"}, 0),
        ((RECORD, 1), {"fit", "prediction"}, 0),
    ],
)
def test_attempt_killed_while_publishing_is_completed_by_the_next(
    deployment: Deployment, step: tuple[str, int], finished: set[str], started: int
) -> None:
    deployment.define({"svm": {}})
    run = deployment.unpack("one")
    killed = deployment.begin(run, dies_after=step)
    assert killed.process.wait(timeout=60) < 0
    assert set(deployment.results()) == finished
    assert (read_record(run.layout, "svm") is not None) == (step[0] == RECORD)
    again = deployment.attempt(run, number=2)
    assert (again.state, again.started) == ("success", started)
    assert FITTING not in again.output
    assert set(deployment.results()) == {"fit", "prediction"}
    assert verified_manifest(run.layout.predictions("svm"))
    assert deployment.leftovers() == []


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("fit with a link", "saved/passwd: the container produced something other than a regular file"),
        ("fit with a linked folder", "plots: the container produced something other than a regular file"),
        ("fit with a pipe", "saved/pipe: the container produced something other than a regular file"),
        ("fit with a piped manifest", "model/validation.csv.manifest.json: the container produced something other"),
        ("fit with a link as its end", "did not finish its fit (model/model.json)"),
        ("fit without end", "did not finish its fit (model/model.json)"),
        ("fit without a row", "validation.csv: 1 of 40 ids of the table have no prediction, the first is n0039"),
    ],
)
def test_invalid_fit_is_not_published_and_made_again(deployment: Deployment, mode: str, message: str) -> None:
    deployment.define({"svm": {"parameters": {"MODE": mode}}})
    run = deployment.unpack("one")
    for number in (1, 2):
        outcome = deployment.attempt(run, number=number)
        assert outcome.state == "failed"
        assert outcome.detail.startswith("AirflowFailException")
        assert message in outcome.detail
        assert FITTING in outcome.output
        assert deployment.results() == {}
        assert read_record(run.layout, "svm") is None
        assert [path for path in deployment.leftovers() if "saved" in path or path.endswith("model")] == []


def test_fit_without_declared_output_is_not_published(deployment: Deployment) -> None:
    deployment.define(
        {"tsne": {"predicts": False, "outputs": ["tsne/map.txt"], "parameters": {"MODE": "fit without output"}}}
    )
    run = deployment.unpack("one")
    outcome = deployment.attempt(run, "tsne")
    assert "did not produce tsne/map.txt, each with its manifest" in outcome.detail
    assert deployment.results("tsne") == {}


def test_invalid_prediction_keeps_the_finished_fit(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "one missing"}}})
    run = deployment.unpack("one")
    outcome = deployment.attempt(run)
    assert "svm.csv: 1 of 20 ids of the table have no prediction, the first is n0059" in outcome.detail
    assert set(deployment.results()) == {"fit"}
    again = deployment.attempt(run, number=2)
    assert again.state == "failed"
    assert FITTING not in again.output
    assert read_record(run.layout, "svm") is None
    assert not run.layout.predictions("svm").exists()


def test_undeclared_files_of_a_fit_are_not_in_the_runs_directory(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "fit with more files"}}, "xgboost": {}})
    run = deployment.unpack("one")
    assert deployment.attempt(run, "xgboost").state == "success"
    before = snapshot(run.layout.directory)
    assert deployment.attempt(run).state == "success"
    after = snapshot(run.layout.directory)
    assert {name: after[name] for name in before} == before
    added = {name for name in after if name not in before and not name.endswith(".manifest.json")}
    assert added == {"predictions/svm.csv", "validation/svm.csv", "reports/svm.json", "plots/svm.png", "tasks/svm.json"}


def test_failed_attempt_has_no_result_of_an_earlier_attempt(deployment: Deployment) -> None:
    deployment.define(MODELS)
    run = replace(deployment.unpack("one"), states={"svm": "success", "xgboost": "success"})
    for task in ("svm", "xgboost"):
        assert deployment.attempt(run, task).state == "success"
    results = deployment.results()
    deployment.define({**MODELS, "svm": {"parameters": {"MODE": "bug"}}})
    assert deployment.attempt(run, number=2).state == "failed"
    assert read_record(run.layout, "svm") is None
    assert [path for path in run.layout.directory.rglob("*svm*") if path.parent.name != "logs"] == []
    assert deployment.results() == results
    outcome = deployment.attempt(replace(run, states={"svm": "failed", "xgboost": "success"}), "ensemble")
    assert outcome.state == "success"
    assert "predictions of: xgboost." in outcome.output
    # without a model, the record of the ensemble of before is gone as well
    outcome = deployment.attempt(replace(run, states={"svm": "failed", "xgboost": "failed"}), "ensemble", number=2)
    assert "no model succeeded" in outcome.detail
    assert read_record(run.layout, "ensemble") is None
    assert not run.layout.predictions("ensemble_mean").exists()


@pytest.mark.parametrize(
    ("file", "fits_again"), [("predictions/svm.csv", False), ("validation/svm.csv", True), ("reports/svm.json", True)]
)
def test_damaged_result_is_made_again(deployment: Deployment, file: str, fits_again: bool) -> None:
    deployment.define({"svm": {}})
    first, second = deployment.unpack("one"), deployment.unpack("two")
    deployment.attempt(first)
    content, records = (first.layout.directory / file).read_bytes(), record_of(first)
    flip_a_byte((first.layout.directory / file).resolve())
    outcome = deployment.attempt(second)
    assert (outcome.state, outcome.started, FITTING in outcome.output) == ("success", 1, fits_again)
    assert (first.layout.directory / file).read_bytes() == content
    assert replace(record_of(second), fitted_at=records.fitted_at) == records


def test_damaged_result_of_an_upstream_task_is_an_error(deployment: Deployment) -> None:
    deployment.define(MODELS)
    run = replace(deployment.unpack("one"), states={"svm": "success", "xgboost": "success"})
    for task in ("svm", "xgboost"):
        deployment.attempt(run, task)
    damaged = run.layout.validation_predictions("svm").resolve()
    flip_a_byte(damaged)
    outcome = deployment.attempt(run, "ensemble")
    assert (outcome.state, outcome.started) == ("failed", 0)
    assert f"{damaged}: its content does not match its manifest" in outcome.detail
    assert os.access(damaged, os.R_OK)
