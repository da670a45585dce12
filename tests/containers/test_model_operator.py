"""Model tasks in the real DAG, in real containers."""

from __future__ import annotations

import contextlib
import copy
import csv
import json
import pkgutil
import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import docker
import pytest
from airflow.sdk import DAG
from docker.models.containers import Container

from numerai_pipeline.data_volume import installation_id
from numerai_pipeline.leaderboard.board import read_run
from numerai_pipeline.leaderboard.links import LeaderboardLink
from numerai_pipeline.leases import RunRef, runs_using
from numerai_pipeline.locks import exclusive_lock
from numerai_pipeline.manifests import verified_manifest
from numerai_pipeline.model_registry import ModelSpec
from numerai_pipeline.parameters import LONGEST_SEARCH
from numerai_pipeline.run_layout import RunLayout
from tests.containers.conftest import TOURNAMENT_IDS, Outcome
from tests.samples import wait_for_a_waiter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.containers

RunDag = Callable[..., Outcome]


def ids_of(predictions: Path) -> list[str]:
    with predictions.open() as file:
        return [row["id"] for row in csv.DictReader(file)]


def test_every_model_leaves_predictions_of_all_ids_in_order(run_dag: RunDag) -> None:
    # more cores than any machine has: it gets those that there are
    outcome = run_dag({"svm": {}, "xgboost": {"cores": 256}})
    layout = RunLayout(outcome.directory)
    assert outcome.state == "success"
    for model in ("svm", "xgboost"):
        assert ids_of(layout.predictions(model)) == TOURNAMENT_IDS
        assert verified_manifest(layout.predictions(model))
    assert json.loads(layout.run_metadata.read_text())["round"] == "archive"
    assert list(runs_using(outcome.directory)) == [RunRef("numerai_tournament", outcome.tasks["svm"].run_id)]


def test_the_verdict_lists_what_every_model_left(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}})
    verdict = outcome.tasks["exploring"].xcom_pull(task_ids="exploring")
    assert verdict["models"]["svm"]["rows"] == len(TOURNAMENT_IDS)
    assert verdict["models"]["svm"]["predictions"] == str(RunLayout(outcome.directory).predictions("svm"))


def test_a_run_leaves_its_page_and_its_tasks_link_to_it(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "xgboost": {}})
    layout = RunLayout(outcome.directory)
    assert str(outcome.tasks["leaderboard"].state) == "success"
    assert f'"run":"{outcome.directory.name}"' in layout.static_page.read_text()
    assert [row["model"] for row in read_run(layout)["models"]] == ["xgboost"]
    assert read_run(layout)["models"][0]["image"] == outcome.tasks["xgboost"].xcom_pull(task_ids="xgboost")["image"]
    for model in ("svm", "xgboost"):
        link = outcome.tasks[model].xcom_pull(task_ids=model, key=LeaderboardLink().xcom_key)
        assert link == f"numerai/leaderboard/?round=archive&run={outcome.directory.name}&model={model}"


def test_the_containers_log_is_the_tasks_log(run_dag: RunDag) -> None:
    assert "[ 50 %] svm with seed 5" in run_dag({"svm": {}}, seed=5).output


def test_a_second_run_finds_everything_up_to_date(run_dag: RunDag) -> None:
    run_dag({"svm": {}})
    outcome = run_dag({"svm": {}})
    assert outcome.state == "success"
    assert outcome.output.count("up to date: inputs, image and parameters unchanged") >= 1
    assert "started container" not in outcome.output


def test_force_computes_again(run_dag: RunDag) -> None:
    run_dag({"svm": {}})
    assert "started container" in run_dag({"svm": {}}, force=True).output


def test_only_what_changed_is_computed_again(run_dag: RunDag) -> None:
    run_dag({"svm": {}, "xgboost": {}})
    output = run_dag({"svm": {"parameters": {"C": 1}}, "xgboost": {}}).output
    assert output.count("started container") == 1
    assert "[ 50 %] svm" in output


def test_models_that_were_not_picked_are_skipped_visibly(run_dag: RunDag, caplog: pytest.LogCaptureFixture) -> None:
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
        "leaderboard": "success",
        "exploring": "success",
        "submit": "skipped",
    }
    assert "not needed for svm, and skipped: tsne, tpot" in caplog.text


PREPARED: dict[str, dict[str, Any]] = {
    "tsne": {"predicts": False, "outputs": ["tsne/map.txt"], "parameters": {"MODE": "prepare"}},
    "tpot": {"depends_on": ["tsne"]},
}


def test_what_a_preparation_left_can_be_read_and_not_changed(run_dag: RunDag) -> None:
    tasks = copy.deepcopy(PREPARED) | {
        "tpot": {"depends_on": ["tsne"], "parameters": {"MODE": "use what was prepared"}}
    }
    outcome = run_dag(tasks)
    assert str(outcome.tasks["tsne"].state) == "success"
    assert "prepared: {}" in outcome.output
    assert "Read-only file system" in outcome.output
    assert (outcome.directory / "tsne" / "map.txt").read_text() == "{}"


def test_a_preparation_is_up_to_date_only_with_all_it_left(run_dag: RunDag) -> None:
    run_dag(copy.deepcopy(PREPARED))
    outcome = run_dag(copy.deepcopy(PREPARED))
    assert outcome.state == "success"
    assert "started container" not in outcome.output
    (outcome.directory / "tsne" / "map.txt").write_text("[]")
    outcome = run_dag(copy.deepcopy(PREPARED))
    assert outcome.output.count("started container") == 1
    assert (outcome.directory / "tsne" / "map.txt").read_text() == "{}"


def test_a_preparation_that_does_not_leave_what_it_should_is_refused(run_dag: RunDag) -> None:
    tasks = copy.deepcopy(PREPARED)
    tasks["tsne"]["outputs"] = ["split.parquet", "tsne/map.txt"]
    outcome = run_dag(tasks)
    assert str(outcome.tasks["tsne"].state) == "failed"
    assert str(outcome.tasks["tpot"].state) == "upstream_failed"
    assert "tsne: the container ended well but did not leave tsne.json, split.parquet, tsne/map.txt" in outcome.output


def test_a_model_that_fails_leaves_the_others_alone_and_the_run_red(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "xgboost": {}})
    assert outcome.state == "failed"
    assert str(outcome.tasks["svm"].state) == "failed"
    assert str(outcome.tasks["xgboost"].state) == "success"
    assert str(outcome.tasks["exploring"].state) == "upstream_failed"


def after(**entry: Any) -> dict[str, Any]:
    """A task after all models, which leaves a file."""
    return {
        "predicts": False,
        "depends_on": ["models"],
        "outputs": ["tsne/map.txt"],
        "parameters": {"MODE": "prepare"},
        **entry,
    }


def states(outcome: Outcome) -> dict[str, str]:
    return {name: str(instance.state) for name, instance in outcome.tasks.items()}


def test_what_comes_after_the_models_goes_on_with_those_that_succeeded_and_the_run_is_red(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "xgboost": {}, "evaluate": after()})
    assert outcome.state == "failed"
    assert states(outcome)["evaluate"] == "success"
    assert states(outcome)["exploring"] == "upstream_failed"


def test_what_comes_after_the_models_makes_the_run_red_when_it_fails(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "ensemble": after(parameters={"MODE": "bad data"}), "evaluate": after()})
    assert outcome.state == "failed"
    assert (states(outcome)["ensemble"], states(outcome)["evaluate"]) == ("failed", "success")


def test_what_comes_after_the_models_runs_whichever_are_picked(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "xgboost": {}, "evaluate": after()}, models=["svm"])
    assert outcome.state == "success"
    assert (states(outcome)["xgboost"], states(outcome)["evaluate"]) == ("skipped", "success")


@pytest.mark.parametrize("archive", [None, "/nowhere.zip"])
def test_what_comes_after_the_models_is_skipped_when_none_succeeded(run_dag: RunDag, archive: str | None) -> None:
    conf = {} if archive is None else {"archive": archive}
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}, "evaluate": after()}, retries=3, **conf)
    assert outcome.state == "failed"
    assert states(outcome)["evaluate"] == "skipped"
    assert outcome.tasks["evaluate"].try_number == 1
    assert "no model succeeded, so there is nothing for evaluate to work on" in outcome.output


def test_what_comes_after_the_models_is_up_to_date_with_the_predictions_that_are_there(run_dag: RunDag) -> None:
    tasks: dict[str, dict[str, Any]] = {
        "svm": {},
        "xgboost": {},
        "evaluate": after(optional_inputs=["targets.parquet"]),
    }
    run_dag(copy.deepcopy(tasks), models=["svm"])
    assert "started container" not in run_dag(copy.deepcopy(tasks), models=["svm"]).output
    outcome = run_dag(copy.deepcopy(tasks))
    assert outcome.output.count("started container") == 2  # xgboost, and evaluate for its predictions
    targets = outcome.directory / "targets.parquet"
    for content, started in (("one", 1), ("one", 0), ("another", 1)):
        targets.write_text(content)
        assert run_dag(copy.deepcopy(tasks)).output.count("started container") == started


def test_what_comes_after_the_models_can_change_none_of_what_it_reads(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "evaluate": after(parameters={"MODE": "write predictions of another"})})
    assert "Read-only file system" in outcome.output
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))


def test_what_comes_after_the_models_leaves_nothing_old_when_it_fails(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "evaluate": after()})
    assert (outcome.directory / "tsne" / "map.txt").is_file()
    outcome = run_dag({"svm": {}, "evaluate": after(parameters={"MODE": "bad data"})})
    assert not list((outcome.directory / "tsne").iterdir())


def test_an_image_of_2018_still_fits(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "of 2018"}}})
    assert outcome.state == "success"
    assert RunLayout(outcome.directory).predictions("svm").read_text().startswith("id,prediction\nn0000,")


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("bad data", "svm: bad data (exit code 65): training.parquet: column 'era' is missing (found: id)"),
        ("unheard of", "svm: bad parameters (exit code 64): MODE 'unheard of' is not known"),
        ("one missing", "svm.csv: 1 of 60 tournament ids have no prediction, the first is n0059"),
        ("constant", "svm.csv: all predictions are (almost) 0.5"),
        ("nothing", "svm.csv: the container succeeded without writing this file"),
    ],
)
def test_what_cannot_get_better_is_not_tried_again(run_dag: RunDag, mode: str, says: str) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": mode}}}, retries=3)
    assert str(outcome.tasks["svm"].state) == "failed"
    assert outcome.tasks["svm"].try_number == 1
    assert says in outcome.output


def try_again_at_once(dag: DAG) -> None:
    for each in dag.tasks:
        each.retry_delay = timedelta(0)


def test_other_failures_are_tried_again(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "out of luck"}}}, retries=1, prepare=try_again_at_once)
    assert outcome.tasks["svm"].try_number == 2
    assert "svm: a bug (exit code 70): the moon was wrong" in outcome.output


@pytest.mark.parametrize(
    "deed",
    [
        "numerai_pipeline.model_container:ModelContainer._remove_in_any_case",
        "numerai_pipeline.workspace:Workspace.remove",
        "pathlib:Path.rmdir",
    ],
)
def test_what_a_try_left_that_was_killed_when_all_was_done_goes_with_the_next(
    run_dag: RunDag, engine: docker.DockerClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, deed: str
) -> None:
    real = pkgutil.resolve_name(deed)
    died: list[bool] = []

    def die_once(*arguments: Any) -> None:
        # when the work is done: a workspace is emptied before it begins as well
        if not died and any((tmp_path / "data").glob("rounds/*/*/predictions/svm.csv")):
            died.append(True)
            raise RuntimeError("killed")
        real(*arguments)

    monkeypatch.setattr(deed.replace(":", "."), die_once)
    outcome = run_dag({"svm": {}}, retries=1, prepare=try_again_at_once)
    assert died
    assert outcome.state == "success"
    assert outcome.tasks["svm"].try_number == 2
    assert "up to date: inputs, image and parameters unchanged" in outcome.output
    assert not (outcome.directory / ".work").exists()
    installation = (tmp_path / "data" / ".installation").read_text().strip()
    assert engine.containers.list(all=True, filters={"label": f"numerai={installation}"}) == []


def test_stale_predictions_are_never_taken_for_new_ones(run_dag: RunDag) -> None:
    run_dag({"svm": {}})
    outcome = run_dag({"svm": {"parameters": {"MODE": "nothing"}}})
    assert outcome.state == "failed"
    assert not RunLayout(outcome.directory).predictions("svm").exists()


def test_a_model_cannot_spoil_its_inputs(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "write inputs"}}})
    assert "Read-only file system" in outcome.output
    assert verified_manifest(RunLayout(outcome.directory).training)


def test_a_model_cannot_spoil_the_predictions_of_another(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {}, "xgboost": {"parameters": {"MODE": "write predictions of another"}}})
    assert states(outcome)["xgboost"] == "failed"
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))
    assert not (outcome.directory / ".work").exists()


def test_the_end_of_a_failed_containers_log_is_kept_with_the_run(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"parameters": {"MODE": "bad data"}}})
    kept = RunLayout(outcome.directory).failure_log("svm", 1).read_text()
    assert "svm: bad data (exit code 65)" in kept
    assert "[ 50 %] svm with seed" in kept


def test_a_run_begins_by_removing_containers_that_nobody_waits_for(
    run_dag: RunDag, engine: docker.DockerClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = run_dag({"svm": {}})
    labels = {"numerai.dag": "numerai_tournament", "numerai.run": first.tasks["svm"].run_id, "numerai.task": "svm"}

    def left_behind(**more: str) -> Container:
        image = first.tasks["svm"].xcom_pull(task_ids="svm")["image"]
        return engine.containers.run(image, entrypoint=["sleep", "600"], labels=labels | more, detach=True)

    ours = left_behind(numerai=(tmp_path / "data" / ".installation").read_text().strip())
    others = left_behind(numerai="another installation")
    try:
        run_dag({"svm": {}})
        assert f"removing container {str(ours.id)[:12]}" in caplog.text
        assert {ours.id, others.id} & {each.id for each in engine.containers.list(all=True)} == {others.id}
    finally:
        for container in (ours, others):
            with contextlib.suppress(docker.errors.NotFound):
                container.remove(force=True)


def test_a_model_cannot_see_the_true_targets_of_what_it_predicts(run_dag: RunDag) -> None:
    directory = run_dag({"svm": {}}).directory
    (directory / "targets.parquet").write_bytes(b"what came true")
    outcome = run_dag({"svm": {"parameters": {"MODE": "peek"}}})
    assert "found 0 bytes of targets" in outcome.output
    assert (directory / "targets.parquet").read_bytes() == b"what came true"
    # whose entry says that it may read them, and only then
    told = run_dag({"svm": {"parameters": {"MODE": "peek"}, "optional_inputs": ["targets.parquet"]}})
    assert "found 14 bytes of targets" in told.output


def test_want_of_memory_names_the_limit_and_the_setting(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"memory": 64, "parameters": {"MODE": "eat memory"}}})
    assert "its limit is 64 MiB; raise `memory` of task svm in models.yaml" in outcome.output


def test_containers_are_labelled_limited_and_without_rights(
    run_dag: RunDag, engine: docker.DockerClient, tmp_path: Path
) -> None:
    seen = {}

    def look_when_it_hangs() -> None:
        for event in engine.events(decode=True, filters={"type": "container", "event": "start", "label": "numerai"}):
            labels = event["Actor"]["Attributes"]
            if labels["numerai.task"] == "svm" and labels["numerai"] == installation_id(tmp_path / "data"):
                container = engine.containers.get(event["id"])
                seen.update(container.attrs)
                container.kill()
                return

    watcher = threading.Thread(target=look_when_it_hangs)
    watcher.start()
    outcome = run_dag({"svm": {"memory": 128, "parameters": {"MODE": "hang"}}})
    watcher.join()
    assert outcome.state == "failed"
    host, labels = seen["HostConfig"], seen["Config"]["Labels"]
    assert labels["numerai"] == (tmp_path / "data" / ".installation").read_text().strip()
    assert labels["numerai.dag"] == "numerai_tournament"
    assert labels["numerai.run"] == outcome.tasks["svm"].run_id
    assert labels["numerai.try"] == "1"
    assert labels["numerai.inputs"]
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


def test_a_time_out_says_so_and_takes_the_container_with_it(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes: 5 if minutes == LONGEST_SEARCH else 0.05)
    outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    assert str(outcome.tasks["svm"].state) == "failed"
    assert "svm: stopped after its time limit of 0.05 minutes; raise `time_limit` of task svm" in outcome.output


def test_airflows_own_time_out_takes_the_container_with_it(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes: 0.05 if minutes == LONGEST_SEARCH else 5)
    outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    assert str(outcome.tasks["svm"].state) == "failed"
    assert "AirflowTaskTimeout" in outcome.output


def test_runs_with_the_same_settings_do_not_work_beside_each_other(run_dag: RunDag) -> None:
    first = run_dag({"svm": {}})
    predictions = RunLayout(first.directory).predictions("svm")
    written = predictions.stat().st_mtime_ns
    holding, waited = threading.Event(), threading.Event()

    def another_run() -> None:
        with exclusive_lock(first.directory / "svm", "making it"):
            holding.set()
            wait_for_a_waiter(first.directory / ".svm.lock")
            # nobody has begun to write anew
            assert predictions.stat().st_mtime_ns == written
            waited.set()

    other = threading.Thread(target=another_run)
    other.start()
    holding.wait()
    second = run_dag({"svm": {}}, force=True)
    other.join()
    assert waited.is_set()
    assert second.state == "success"
    assert predictions.stat().st_mtime_ns > written
