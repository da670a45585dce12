"""Container tasks of the real DAG, in real containers."""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import pkgutil
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import docker
import pytest
from airflow.sdk import DAG
from docker.models.containers import Container

from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.core.parameters import LONGEST_SEARCH
from numerai_pipeline.dag.deployment import VARIABLE
from numerai_pipeline.dag.leaderboard_links import LeaderboardLink
from numerai_pipeline.leaderboard.run_view import read_run
from numerai_pipeline.models.registry import ModelSpec
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from tests.containers.conftest import LIVE_IDS, VALIDATION_IDS, Outcome
from tests.samples import DEPLOYMENT

pytestmark = pytest.mark.containers

RunDag = Callable[..., Outcome]


def ids_of(predictions: Path) -> list[str]:
    with predictions.open() as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_model_predicts_all_ids_in_order(run_dag: RunDag) -> None:
    # more cores than any machine has: the limit is then the machine's
    outcome = run_dag({"svm": {}, "xgboost": {"cores": 256}, "tpot": {"keeps_model": False}})
    layout = RunLayout(outcome.directory)
    assert outcome.state == "success"
    for model in ("svm", "xgboost", "tpot"):
        assert ids_of(layout.predictions(model)) == LIVE_IDS
        assert ids_of(layout.validation_predictions(model)) == VALIDATION_IDS
        assert verified_manifest(layout.predictions(model))
        assert verified_manifest(layout.validation_predictions(model))
    assert json.loads(layout.run_metadata.read_text())["round"] == "archive"


def test_exploring_summarizes_predictions_of_every_model(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}})
    summary = outcome.tasks["exploring"].xcom_pull(task_ids="exploring")
    assert summary["models"]["svm"]["rows"] == len(LIVE_IDS)
    assert summary["models"]["svm"]["predictions"] == str(RunLayout(outcome.directory).predictions("svm"))


def test_leaderboard_writes_page_that_tasks_link_to(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "xgboost": {}})
    layout = RunLayout(outcome.directory)
    assert str(outcome.tasks["leaderboard"].state) == "success"
    assert f'"run":"{outcome.directory.name}"' in layout.static_page.read_text()
    assert [row["model"] for row in read_run(layout)["models"]] == ["xgboost"]
    assert read_run(layout)["models"][0]["image"] == outcome.tasks["xgboost"].xcom_pull(task_ids="xgboost")["image"]
    for model in ("svm", "xgboost"):
        link = outcome.tasks[model].xcom_pull(task_ids=model, key=LeaderboardLink().xcom_key)
        assert link == f"numerai/leaderboard/?round=archive&run={outcome.directory.name}&model={model}"


def test_container_log_is_in_the_task_log(run_dag: RunDag) -> None:
    assert "[ 50 %] svm with seed 5" in run_dag({"svm": {}}, seed=5).output


def test_second_run_is_up_to_date_and_starts_no_container(run_dag: RunDag) -> None:
    run_dag({"svm": {}})
    outcome = run_dag({"svm": {}})
    assert outcome.state == "success"
    assert "up to date: fit " in outcome.output
    assert "started container" not in outcome.output


def test_second_run_with_force_starts_a_container(run_dag: RunDag) -> None:
    run_dag({"svm": {}})
    assert "started container" in run_dag({"svm": {}}, force=True).output


def test_second_run_starts_containers_of_changed_tasks_only(run_dag: RunDag) -> None:
    run_dag({"svm": {}, "xgboost": {}})
    output = run_dag({"svm": {"parameters": {"C": 1}}, "xgboost": {}}).output
    assert output.count("started container") == 1
    assert "[ 50 %] svm" in output


def test_models_not_selected_are_skipped_by_unzip(run_dag: RunDag) -> None:
    tasks = {
        "svm": {},
        "tsne": {"predicts": False, "parameters": {"MODE": "nothing"}},
        "tpot": {"depends_on": ["tsne"]},
    }
    outcome = run_dag(tasks, models=["svm"])
    assert outcome.state == "success"
    assert {name: str(instance.state) for name, instance in outcome.tasks.items()} == {
        "wait_for_round": "success",
        "download": "success",
        "unzip": "success",
        "svm": "success",
        "tsne": "skipped",
        "tpot": "skipped",
        "models_ended": "success",
        "model_succeeded": "success",
        "leaderboard": "success",
        "exploring": "success",
        "submit": "skipped",
        "resubmit": "skipped",
    }
    assert "skipped, since svm do not need them: tsne, tpot" in outcome.output


PREPROCESSED: dict[str, dict[str, Any]] = {
    "tsne": {"predicts": False, "outputs": ["tsne/map.txt"], "parameters": {"MODE": "prepare"}},
    "tpot": {"depends_on": ["tsne"]},
}


def test_preprocessing_output_is_read_only_for_models(run_dag: RunDag) -> None:
    tasks = copy.deepcopy(PREPROCESSED) | {"tpot": {"depends_on": ["tsne"], "parameters": {"MODE": "use preprocessed"}}}
    outcome = run_dag(tasks)
    assert str(outcome.tasks["tsne"].state) == "success"
    assert "prepared: {}" in outcome.output
    assert "Read-only file system" in outcome.output
    assert (outcome.directory / "tsne" / "map.txt").read_text() == "{}"


def test_image_of_2018_prepares_and_its_output_is_used_again(run_dag: RunDag) -> None:
    tasks = copy.deepcopy(PREPROCESSED)
    tasks["tsne"]["keeps_model"] = tasks["tpot"]["keeps_model"] = False
    first = run_dag(copy.deepcopy(tasks))
    assert (first.state, (first.directory / "tsne" / "map.txt").read_text()) == ("success", "{}")
    second = run_dag(tasks)
    assert second.state == "success"
    assert "started container" not in second.output
    assert (second.directory / "tsne" / "map.txt").read_text() == "{}"


def test_model_follows_a_changed_preprocessing_task(run_dag: RunDag) -> None:
    run_dag(copy.deepcopy(PREPROCESSED))
    changed = copy.deepcopy(PREPROCESSED)
    changed["tsne"]["parameters"]["ITERATIONS"] = 5
    assert run_dag(changed).output.count("started container") == 2


def test_preprocessing_task_without_declared_output_fails(run_dag: RunDag) -> None:
    tasks = copy.deepcopy(PREPROCESSED)
    tasks["tsne"]["outputs"] = ["split.parquet", "tsne/map.txt"]
    outcome = run_dag(tasks)
    assert str(outcome.tasks["tsne"].state) == "failed"
    assert str(outcome.tasks["tpot"].state) == "upstream_failed"
    assert (
        "tsne: the container ended without an error but did not produce split.parquet, each with its manifest"
        in outcome.output
    )


def test_model_failure_fails_the_run_but_not_other_models(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "xgboost": {}})
    assert outcome.state == "failed"
    assert str(outcome.tasks["svm"].state) == "failed"
    assert str(outcome.tasks["xgboost"].state) == "success"
    assert str(outcome.tasks["exploring"].state) == "upstream_failed"


def post_processing(**entry: Any) -> dict[str, Any]:
    """Make an entry of a task after all models, which outputs a file."""
    return {
        "predicts": False,
        "depends_on": ["models"],
        "outputs": ["tsne/map.txt"],
        "parameters": {"MODE": "prepare"},
        **entry,
    }


def states(outcome: Outcome) -> dict[str, str]:
    return {name: str(instance.state) for name, instance in outcome.tasks.items()}


def test_post_processing_uses_the_models_that_succeeded(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "xgboost": {}, "evaluate": post_processing()})
    assert outcome.state == "failed"
    assert states(outcome)["evaluate"] == "success"
    assert states(outcome)["exploring"] == "upstream_failed"


def test_post_processing_failure_fails_the_run(run_dag: RunDag) -> None:
    outcome = run_dag(
        {"svm": {}, "ensemble": post_processing(parameters={"MODE": "bad data"}), "evaluate": post_processing()}
    )
    assert outcome.state == "failed"
    assert (states(outcome)["ensemble"], states(outcome)["evaluate"]) == ("failed", "success")


def test_post_processing_runs_for_any_selected_model(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "xgboost": {}, "evaluate": post_processing()}, models=["svm"])
    assert outcome.state == "success"
    assert (states(outcome)["xgboost"], states(outcome)["evaluate"]) == ("skipped", "success")


@pytest.mark.parametrize("archive", [None, "/nowhere.zip"])
def test_post_processing_without_successful_model_does_not_run(run_dag: RunDag, archive: str | None) -> None:
    conf = {} if archive is None else {"archive": archive}
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "evaluate": post_processing()}, retries=3, **conf)
    assert outcome.state == "failed"
    assert states(outcome)["evaluate"] == "upstream_failed"


def test_post_processing_runs_again_when_an_input_changes(run_dag: RunDag) -> None:
    tasks: dict[str, dict[str, Any]] = {"svm": {}, "xgboost": {}, "evaluate": post_processing()}
    first = run_dag(copy.deepcopy(tasks), models=["svm"])
    before = tree_of(first.directory)
    assert "started container" not in run_dag(copy.deepcopy(tasks), models=["svm"]).output
    outcome = run_dag(copy.deepcopy(tasks))
    assert outcome.output.count("started container") == 2  # xgboost, and evaluate for its predictions
    assert tree_of(first.directory) == before


def tree_of(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


RANKED: dict[str, dict[str, Any]] = {
    "svm": {},
    "xgboost": {},
    "ensemble": {
        "predicts": False,
        "depends_on": ["models"],
        "outputs": ["validation/ensemble_mean.csv"],
        "live_outputs": ["predictions/ensemble_mean.csv"],
        "parameters": {"MODE": "combine"},
    },
    "evaluate": {
        "predicts": False,
        "depends_on": ["models", "ensemble"],
        "outputs": ["leaderboard.json"],
        "parameters": {"MODE": "prepare", "OUTPUT": "leaderboard.json"},
    },
}


def test_page_of_a_run_is_not_changed_by_later_runs(run_dag: RunDag) -> None:
    first = run_dag(copy.deepcopy(RANKED))
    assert first.state == "success"
    before, board = tree_of(first.directory), read_run(RunLayout(first.directory))
    assert {"leaderboard.html", "leaderboard.json", "predictions/ensemble_mean.csv"} <= set(before)
    later_runs: list[dict[str, Any]] = [
        {"models": ["svm"]},
        {"force": True},
        {"models": ["xgboost"], "force": True},
        {"seed": 8},
    ]
    for choices in later_runs:
        later = run_dag(copy.deepcopy(RANKED), **choices)
        assert later.state == "success"
        assert later.directory != first.directory
        assert tree_of(first.directory) == before
        assert read_run(RunLayout(first.directory)) == board
        selected = choices.get("models", ["svm", "xgboost"])
        assert f"predictions of: {', '.join(selected)}." in later.output or "up to date" in later.output
        assert [
            name for name in ("svm", "xgboost") if RunLayout(later.directory).predictions(name).exists()
        ] == selected


def test_post_processing_inputs_are_read_only(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "evaluate": post_processing(parameters={"MODE": "write predictions of another"})})
    assert "Read-only file system" in outcome.output
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))


def test_post_processing_failure_has_no_outputs(run_dag: RunDag) -> None:
    first = run_dag({"svm": {}, "evaluate": post_processing()})
    assert (first.directory / "tsne" / "map.txt").is_file()
    outcome = run_dag({"svm": {}, "evaluate": post_processing(parameters={"MODE": "bad data"})})
    assert not (outcome.directory / "tsne").exists()
    assert (first.directory / "tsne" / "map.txt").is_file()


def test_image_of_2018_predicts(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"keeps_model": False, "parameters": {"MODE": "of 2018"}}})
    layout = RunLayout(outcome.directory)
    assert outcome.state == "success"
    assert layout.validation_predictions("svm").read_text().startswith("id,prediction\nn0000,")
    assert layout.predictions("svm").read_text().startswith("id,prediction\nn0040,")


@pytest.mark.parametrize(
    ("mode", "message"),
    [
        ("bad data", "svm: bad data (exit code 65): training.parquet: column 'era' is missing (found: id)"),
        ("unheard of", "svm: bad parameters (exit code 64): MODE 'unheard of' is not known"),
        ("one missing", "svm.csv: 1 of 20 ids of the table have no prediction, the first is n0059"),
        ("constant", "svm.csv: all predictions are (almost) 0.5"),
        ("nothing", "svm.csv: the container succeeded without writing this file"),
    ],
)
def test_failure_by_bad_input_is_not_retried(run_dag: RunDag, mode: str, message: str) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": mode}}}, retries=3)
    assert str(outcome.tasks["svm"].state) == "failed"
    assert outcome.tasks["svm"].try_number == 1
    assert message in outcome.output


def retry_without_delay(dag: DAG) -> None:
    for each in dag.tasks:
        each.retry_delay = timedelta(0)


def test_other_failures_are_retried(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bug"}}}, retries=1, prepare=retry_without_delay)
    assert outcome.tasks["svm"].try_number == 2
    assert "svm: a bug (exit code 70): a division by zero" in outcome.output


@pytest.mark.parametrize(
    "step",
    [
        "numerai_pipeline.containers.runner:ContainerRunner._remove_best_effort",
        "numerai_pipeline.containers.workspace:Workspace.remove",
        "pathlib:Path.rmdir",
    ],
)
def test_attempt_killed_during_cleanup_is_cleaned_up_by_the_next(
    run_dag: RunDag, engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    real = pkgutil.resolve_name(step)
    died: list[bool] = []

    def die_once(*arguments: Any) -> None:
        # only after the outputs were collected: a workspace is removed before the start as well
        if not died and len(list((tmp_path / "data").glob("results/svm/*/result.json"))) == 2:
            died.append(True)
            raise RuntimeError("killed")
        real(*arguments)

    monkeypatch.setattr(step.replace(":", "."), die_once)
    outcome = run_dag({"svm": {}}, retries=1, prepare=retry_without_delay)
    assert died
    assert outcome.state == "success"
    assert outcome.tasks["svm"].try_number == 2
    assert "up to date: fit " in outcome.output
    assert list((tmp_path / "data" / "work").glob("*/*/")) == []
    installation = (tmp_path / "data" / ".installation").read_text().strip()
    assert engine.containers.list(all=True, filters={"label": f"numerai={installation}"}) == []


def test_container_without_output_does_not_pass_with_old_output(run_dag: RunDag) -> None:
    run_dag({"svm": {}})
    outcome = run_dag({"svm": {"parameters": {"MODE": "nothing"}}})
    assert outcome.state == "failed"
    assert not RunLayout(outcome.directory).predictions("svm").exists()


def test_inputs_are_read_only_for_the_container(run_dag: RunDag, tmp_path: Path) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "write inputs"}}})
    assert "Read-only file system" in outcome.output
    [training] = (tmp_path / "data").glob("datasets/*/training.parquet")
    assert verified_manifest(training)


def test_predictions_of_another_model_are_not_writable(run_dag: RunDag) -> None:
    mode = {"MODE": "write predictions of another"}
    outcome = run_dag({"svm": {}, "xgboost": {"parameters": mode}, "tpot": {"keeps_model": False, "parameters": mode}})
    assert outcome.state == "success"
    # the other tasks have written to their own workspaces
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))


def test_failed_container_log_tail_is_saved_with_the_run(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}})
    saved = RunLayout(outcome.directory).failure_log("svm", 1).read_text()
    assert "svm: bad data (exit code 65)" in saved
    assert "[ 50 %] svm with seed" in saved


def test_run_start_removes_orphans_of_this_deployment_only(
    run_dag: RunDag, engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.models.variable import Variable

    monkeypatch.delenv("AIRFLOW_VAR_NUMERAI_DEPLOYMENT")
    first = run_dag({"svm": {}})
    volume, deployment = (tmp_path / "data" / ".installation").read_text().strip(), Variable.get(VARIABLE)
    labels = {"numerai.dag": "numerai_tournament", "numerai.run": first.tasks["svm"].run_id, "numerai.task": "svm"}

    def orphan(**more: str) -> Container:
        image = first.tasks["svm"].xcom_pull(task_ids="svm")["image"]
        return engine.containers.run(image, entrypoint=["sleep", "600"], labels=labels | more, detach=True)

    ours = orphan(**{"numerai": volume, "numerai.deployment": deployment})
    of_another_airflow = orphan(**{"numerai": volume, "numerai.deployment": "another"})
    of_another_volume = orphan(**{"numerai": "another", "numerai.deployment": deployment})
    others = {of_another_airflow.id, of_another_volume.id}
    try:
        second = run_dag({"svm": {}})
        assert f"removing container {str(ours.id)[:12]}" in second.output
        assert {ours.id, *others} & {each.id for each in engine.containers.list(all=True)} == others
    finally:
        for container in (ours, of_another_airflow, of_another_volume):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)


def test_targets_are_mounted_for_tasks_with_the_declared_input_only(run_dag: RunDag, tmp_path: Path) -> None:
    def hide_targets(dag: DAG) -> None:
        def now(_context: Any) -> None:
            for live in (tmp_path / "data").glob("rounds/*/*/live.parquet"):
                live.with_name("targets.parquet").write_bytes(b"known targets")

        dag.get_task("unzip").on_success_callback = [now]

    outcome = run_dag({"svm": {"parameters": {"MODE": "peek"}}}, prepare=hide_targets)
    assert "targets: none" in outcome.output
    declared = {"svm": {"parameters": {"MODE": "peek"}, "optional_inputs": ["targets.parquet"]}}
    assert "targets: 13" in run_dag(declared, prepare=hide_targets).output


def test_out_of_memory_names_limit_and_setting(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"memory": 64, "parameters": {"MODE": "eat memory"}}})
    assert "its limit is 64 MiB; raise `memory` of task svm in models.yaml" in outcome.output


def test_container_has_labels_limits_and_sandbox(run_dag: RunDag, engine: docker.DockerClient, tmp_path: Path) -> None:
    seen = {}

    def inspect_and_kill() -> None:
        for event in engine.events(decode=True, filters={"type": "container", "event": "start", "label": "numerai"}):
            labels = event["Actor"]["Attributes"]
            if labels["numerai.task"] == "svm" and labels["numerai"] == installation_id(tmp_path / "data"):
                container = engine.containers.get(event["id"])
                seen.update(container.attrs)
                container.kill()
                return

    watcher = threading.Thread(target=inspect_and_kill)
    watcher.start()
    outcome = run_dag({"svm": {"memory": 128, "parameters": {"MODE": "hang"}}})
    watcher.join()
    assert outcome.state == "failed"
    host, labels = seen["HostConfig"], seen["Config"]["Labels"]
    assert labels["numerai"] == (tmp_path / "data" / ".installation").read_text().strip()
    assert labels["numerai.deployment"] == DEPLOYMENT
    assert labels["numerai.dag"] == "numerai_tournament"
    assert labels["numerai.run"] == outcome.tasks["svm"].run_id
    assert labels["numerai.try"] == "1"
    assert labels["numerai.key"]
    assert host["Memory"] == host["MemorySwap"] == 128 * 2**20
    assert host["CpuQuota"] == host["CpuPeriod"] == 100_000
    assert host["NetworkMode"] == "none"
    assert host["ReadonlyRootfs"] is True
    assert host["Init"] is True
    assert host["CapDrop"] == ["ALL"]
    assert "no-new-privileges" in host["SecurityOpt"]
    assert host["PidsLimit"] == 4096
    assert not seen["Config"]["User"].startswith("0")
    assert not any("docker.sock" in mount["Source"] for mount in seen["Mounts"])


def test_time_limit_removes_the_container_and_names_the_setting(
    run_dag: RunDag, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes, _targets: 5 if minutes == LONGEST_SEARCH else 0.05)
    outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    assert str(outcome.tasks["svm"].state) == "failed"
    assert "svm: stopped after its time limit of 0.05 minutes; raise `time_limit` of task svm" in outcome.output


def test_execution_timeout_removes_the_container(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes, _targets: 0.05 if minutes == LONGEST_SEARCH else 5)
    outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    assert str(outcome.tasks["svm"].state) == "failed"
    assert "AirflowTaskTimeout" in outcome.output
