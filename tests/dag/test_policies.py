"""Policies of all DAGs of this bundle, and the shape of the graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import CronTriggerTimetable, TriggerRule

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Submissions
from numerai_pipeline.dag.model_operator import ModelOperator
from numerai_pipeline.dag.round_sensor import RoundSensor
from numerai_pipeline.dag.timetable import NumeraiRounds
from numerai_pipeline.models.images import image_reference
from practice.season import Season
from practice.server import running
from tests.clocked_season import SIZE
from tests.samples import FLEMING, INDEPENDENT, ROOT, task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk import DAG
    from airflow.serialization.definitions.dag import SerializedDAG


def load_dags() -> dict[str, DAG]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
    assert bag.import_errors == {}
    return bag.dags


def load_dag() -> DAG:
    return load_dags()["numerai_tournament"]


@pytest.fixture
def dag() -> DAG:
    return load_dag()


def containers(dag: DAG) -> list[ModelOperator]:
    return [task for task in dag.tasks if isinstance(task, ModelOperator)]


def test_bundle_has_two_dags() -> None:
    assert sorted(load_dags()) == ["numerai_housekeeping", "numerai_tournament"]


@pytest.fixture
def stables_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "stables.yaml"
    monkeypatch.setenv("NUMERAI_STABLES", str(path))
    load_settings.cache_clear()
    return path


STABLES = """
stables:
  - name: weekday
    schedule: tue,wed,thu,fri
    parameters: {models: [svm], seed: 5, fit: never, submit: true}
    submissions: {alpha: ensemble_selection}
  - name: monthly
    schedule: off
"""


def test_stable_is_a_dag_of_the_same_graph_and_policies(stables_file: Path, dag: DAG) -> None:
    stables_file.write_text(STABLES)
    dags = load_dags()
    names = ["numerai_housekeeping", "numerai_monthly", "numerai_tournament", "numerai_weekday"]
    assert sorted(dags) == names
    weekday = dags["numerai_weekday"]
    assert weekday.fileloc == dag.fileloc
    assert weekday.doc_md == dag.doc_md
    assert weekday.tags == dag.tags
    graph = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert {task.task_id: task.upstream_task_ids for task in weekday.tasks} == graph
    assert [task.priority_weight for task in weekday.tasks] == [task.priority_weight for task in dag.tasks]
    changed = {"models": ["svm"], "seed": 5, "fit": "never"}
    assert weekday.params.dump() == {**dag.params.dump(), **changed}
    assert dags["numerai_tournament"].params.dump() == dag.params.dump()
    summaries = [serialized(dags[name]).timetable.summary for name in ("numerai_weekday", "numerai_monthly")]
    assert summaries == [
        "Tuesday, Wednesday, Thursday and Friday rounds, from 12:00 UTC",
        "Saturday rounds, on demand",
    ]
    assert submissions_of(weekday).models == {"alpha": "ensemble_selection"}
    assert all(container.live_dags == (names[2], names[3], names[1]) for container in containers(weekday))


def test_process_of_a_task_builds_the_dag_of_its_task_only(stables_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.definitions.context import _AIRFLOW_PARSING_CONTEXT_DAG_ID

    stables_file.write_text(STABLES)
    # Airflow's own context manager does not remove the variable at its end
    monkeypatch.setenv(_AIRFLOW_PARSING_CONTEXT_DAG_ID, "numerai_weekday")
    assert sorted(load_dags()) == ["numerai_housekeeping", "numerai_weekday"]


MISTAKEN_STABLES = [
    pytest.param("name: weekday, schedule: sunday", "numerai_weekday", None, "schedule='sunday'", id="schedule"),
    pytest.param(
        "name: weekday, schedule: tue, parameters: {models: [smv]}",
        *("numerai_weekday", "Tuesday rounds, from 12:00 UTC", "parameters.models='smv': no such model"),
        id="model",
    ),
    pytest.param(
        "name: weekday, submissions: {alpha: smv}",
        *("numerai_weekday", "Saturday rounds, from 12:00 UTC", "submissions.alpha=smv: no model or ensemble"),
        id="submission",
    ),
    pytest.param("name: Week Day", "numerai_stable_1", "Saturday rounds, from 12:00 UTC", "name='Week Day'", id="name"),
]


@pytest.mark.parametrize(("entry", "name", "summary", "expected"), MISTAKEN_STABLES)
def test_mistake_in_a_stable_fails_its_first_task_only(
    stables_file: Path, entry: str, name: str, summary: str | None, expected: str
) -> None:
    stables_file.write_text(f"stables: [{{{entry}}}, {{name: other}}]")
    dags = load_dags()
    assert set(dags) == {"numerai_housekeeping", "numerai_other", "numerai_tournament", name}
    stored = serialized(dags[name])
    assert (stored.timetable.summary if summary else dags[name].schedule) == summary
    assert expected in (stored.description or "")
    error = first_error(dags[name])
    assert str(stables_file) in error
    assert expected in error
    for valid in ("numerai_other", "numerai_tournament"):
        assert first_error(dags[valid]) == ""


@pytest.mark.parametrize("text", [None, "stables: [", "5"])
def test_unreadable_stables_fail_the_first_task_and_keep_the_dags_of_runs_that_have_begun(
    stables_file: Path, text: str | None
) -> None:
    stables_file.write_text(STABLES)
    assert first_error(load_dags()["numerai_weekday"]) == ""
    if text is None:
        stables_file.unlink()
    else:
        stables_file.write_text(text)
    dags = load_dags()
    # no run of the other stable has begun
    assert sorted(dags) == ["numerai_housekeeping", "numerai_tournament", "numerai_weekday"]
    for name in ("numerai_tournament", "numerai_weekday"):
        assert str(stables_file) in first_error(dags[name])
    assert dags["numerai_weekday"].params["seed"] == 5
    assert submissions_of(dags["numerai_weekday"]).scheduled


def test_stable_that_is_not_listed_any_more_has_no_dag(stables_file: Path) -> None:
    stables_file.write_text(STABLES)
    first_error(load_dags()["numerai_weekday"])
    stables_file.write_text("stables: [{name: other}]")
    first_error(load_dags()["numerai_other"])
    stables_file.write_text("stables: [")
    assert sorted(load_dags()) == ["numerai_housekeeping", "numerai_other", "numerai_tournament"]


def test_stale_name_in_numerai_submissions_fails_the_first_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=smv")
    load_settings.cache_clear()
    assert "NUMERAI_SUBMISSIONS: alpha=smv: no model or ensemble 'smv'" in first_error(load_dag())


def submissions_of(dag: DAG) -> Submissions:
    submit = dag.task_dict["submit"]
    assert isinstance(submit, PythonOperator)
    found = submit.op_kwargs["submissions"]
    assert isinstance(found, Submissions)
    return found


def first_error(dag: DAG) -> str:
    """Run the first task of a manual run; return the message with which it fails."""
    from airflow.sdk.exceptions import AirflowFailException

    sensor = dag.task_dict["wait_for_round"]
    assert isinstance(sensor, RoundSensor)
    run = SimpleNamespace(run_type="manual", data_interval_end=None, logical_date=None)
    context: Any = {"dag_run": run, "params": {**dag.params.dump(), "submit": False}}
    try:
        sensor.execute(context)
    except AirflowFailException as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("name", "text"), [("numerai_tournament", "exploring"), ("numerai_housekeeping", "Dry run")])
def test_dag_has_documentation_owner_and_tags(name: str, text: str) -> None:
    dag = load_dags()[name]
    assert text in (dag.doc_md or "")
    assert dag.description
    assert "numerai" in dag.tags
    assert {task.owner for task in dag.tasks} == {"numerai"}
    assert all(task.doc_md for task in dag.tasks)


def test_task_has_no_copy_of_the_parameters(dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "seed" in dag.params
    assert {task.task_id: list(task.params) for task in dag.tasks if task.params} == {}
    monkeypatch.setenv("NUMERAI_APPROVE_SUBMISSIONS", "true")
    load_settings.cache_clear()
    tasks = load_dag().task_dict
    assert "approve" in tasks
    assert not any(task.params for task in tasks.values())


def test_task_has_time_limit_and_retries() -> None:
    tasks = [task for dag in load_dags().values() for task in dag.tasks]
    assert all(task.execution_timeout is not None for task in tasks)
    assert all(task.retries for task in tasks)
    assert load_dags()["numerai_tournament"].dagrun_timeout == timedelta(days=7)


def test_image_has_tag_of_its_code_and_configured_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_IMAGE_REGISTRY", "ghcr.io/me/")
    load_settings.cache_clear()
    tasks = load_dags()["numerai_tournament"].tasks
    found = {each.task_id: each.image for each in tasks if isinstance(each, ModelOperator)}
    for name, image, python in (("svm", "classic", "3.12"), ("auto_sklearn", "auto_sklearn", "3.9")):
        assert found[name] == f"ghcr.io/me/{image_reference(ROOT / 'model_images', image, python)}"


def test_housekeeping_is_weekly_and_can_be_disabled(monkeypatch: pytest.MonkeyPatch) -> None:
    dag = load_dags()["numerai_housekeeping"]
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.expression == "0 3 * * 1"
    assert serialized(dag).timetable.summary == "0 3 * * 1"
    assert dag.max_active_runs == 1
    upstream = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert upstream == {"containers": set(), "runs": {"containers"}, "results": {"runs"}, "downloads": {"results"}}
    monkeypatch.setenv("NUMERAI_HOUSEKEEPING", "false")
    load_settings.cache_clear()
    assert load_dags()["numerai_housekeeping"].schedule is None


def test_housekeeping_form_has_defaults_and_bounds_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    monkeypatch.setenv("NUMERAI_KEEP_ROUNDS", "3")
    monkeypatch.setenv("NUMERAI_KEEP_DAYS", "30")
    load_settings.cache_clear()
    params = load_dags()["numerai_housekeeping"].params
    assert params.dump() == {"dry_run": False, "keep_rounds": 3, "keep_days": 30}
    for name, value in {"keep_days": 6, "keep_rounds": 0, "dry_run": "no"}.items():
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(value)


def test_container_task_is_docker_operator_with_limits_and_mount(dag: DAG) -> None:
    assert len(containers(dag)) == 17
    for container in containers(dag):
        name = container.task_id
        assert isinstance(container, DockerOperator), name
        assert container.image.startswith(f"numerai-{container.spec.image.replace('_', '-')}:"), name
        assert container.auto_remove == "force", name
        assert container.retries == 3, name
        assert container.retry_exponential_backoff, name
        assert container.pool == "numerai_models", name
        cores = container.spec.cores_of(load_settings().cores)
        assert container.pool_slots == container.cpus == cores, name
        assert container.environment["THREADS"] == str(cores), name
        assert container.mem_limit == f"{container.spec.memory}m", name
        assert container.spec.memory >= 64, name
        assert container.environment["MEMORY_LIMIT"] == str(container.spec.memory), name
        assert container.network_mode == "none", name
        assert container.mount_tmp_dir is False, name
        [mount] = container.mounts
        assert (mount["Target"], mount["Type"], mount["ReadOnly"]) == ("/data", "bind", False), name
        assert mount["Source"] == f"{load_settings().data_dir}/work/{name}", name


def test_container_task_cores_are_a_share_of_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_CORES", "32")
    load_settings.cache_clear()
    [xgboost] = [each for each in containers(load_dags()["numerai_tournament"]) if each.task_id == "xgboost"]
    assert (xgboost.pool_slots, xgboost.cpus, xgboost.environment["THREADS"]) == (16, 16, "16")


def test_other_tasks_with_a_docker_image_do_not_exist(dag: DAG) -> None:
    names = {task.task_id for task in dag.tasks if isinstance(task, DockerOperator)}
    assert names == {task.task_id for task in containers(dag)}


def test_container_task_connects_as_the_environment_configures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://engine.example:2376")
    monkeypatch.setenv("DOCKER_TLS_VERIFY", "1")
    monkeypatch.setenv("DOCKER_CERT_PATH", "/certificates")
    monkeypatch.setenv("NUMERAI_DOCKER_CONN_ID", "registry")
    load_settings.cache_clear()
    for container in containers(load_dag()):
        assert container.docker_url == "tcp://engine.example:2376"
        assert container.tls_ca_cert == "/certificates/ca.pem"
        assert container.tls_client_cert == "/certificates/cert.pem"
        assert container.tls_client_key == "/certificates/key.pem"
        assert container.tls_verify is True
        assert container.docker_conn_id == "registry"


def test_graph_has_the_documented_edges(dag: DAG) -> None:
    upstream = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert upstream["wait_for_round"] == set()
    assert upstream["download"] == {"wait_for_round"}
    assert upstream["unzip"] == {"download"}
    assert all(upstream[model] == {"unzip"} for model in (*INDEPENDENT, "adversarial_validation"))
    assert upstream["tsne"] == {"adversarial_validation"}
    assert all(upstream[model] == {"tsne"} for model in FLEMING)
    assert upstream["models_ended"] == upstream["model_succeeded"] == {*INDEPENDENT, *FLEMING}
    assert upstream["ensemble"] == {"models_ended", "model_succeeded"}
    assert upstream["evaluate"] == {"model_succeeded", "ensemble"}
    assert upstream["leaderboard"] == {"model_succeeded", "ensemble", "evaluate"}
    assert upstream["exploring"] == {*INDEPENDENT, *FLEMING, "ensemble", "evaluate", "leaderboard"}
    assert upstream["submit"] == {"model_succeeded", "leaderboard"}
    assert {task.task_id for task in dag.task_group.get_task_group_dict()["fleming"]} == set(FLEMING)


def test_notifications_add_callbacks_and_the_deadline(dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "deadline" not in dag.task_dict
    assert not any(task.has_on_failure_callback for task in dag.tasks)
    monkeypatch.setenv("NUMERAI_NOTIFY_APPRISE", "alarms")
    dag = load_dag()
    deadline = dag.task_dict["deadline"]
    # a leaf that needs no slot of the models' pool
    assert (deadline.upstream_task_ids, deadline.downstream_task_ids) == ({"wait_for_round"}, set())
    assert deadline.pool != dag.task_dict["svm"].pool
    assert deadline.execution_timeout
    assert deadline.doc_md
    assert all(task.has_on_failure_callback for task in serialized(dag).tasks)


def test_submit_runs_after_failed_evaluation_and_can_fail_the_run(dag: DAG) -> None:
    submit = dag.task_dict["submit"]
    assert isinstance(submit, PythonOperator)
    assert TriggerRule(submit.trigger_rule).value == "all_done_min_one_success"
    # a leaf: when it fails, so does the run
    assert submit.downstream_task_ids == set()
    assert set(submit.op_kwargs["models"]) == {*INDEPENDENT, *FLEMING}
    ensembles = {f"ensemble_{name}" for name in ("geometric_mean", "fleming", "selection", "gauss_rank")}
    assert {*ensembles, "svm"} <= set(submit.op_kwargs["predictions"])
    assert dag.params.get_param("submit").value is None


def test_submit_with_approval_requires_success_of_approve(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SUBMIT", "true")
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "alpha=svm")
    monkeypatch.setenv("NUMERAI_APPROVE_SUBMISSIONS", "true")
    load_settings.cache_clear()
    dag = load_dag()
    # the setting is for scheduled runs; a manual run submits if its form has it
    assert dag.params.get_param("submit").value is None
    approve, submit = dag.task_dict["approve"], dag.task_dict["submit"]
    assert approve.upstream_task_ids == {"model_succeeded", "leaderboard"}
    assert submit.upstream_task_ids == {"approve"}
    # nothing is submitted without an approval
    assert TriggerRule(submit.trigger_rule).value == "all_success"
    assert TriggerRule(approve.trigger_rule).value == "all_done_min_one_success"
    assert all(task.execution_timeout and task.retries and task.doc_md for task in (approve, submit))
    assert serialized(dag).task_dict["approve"].task_type == "SubmissionApproval"


def test_post_processing_tasks_run_when_the_ones_before_failed(dag: DAG) -> None:
    rules = {container.task_id: TriggerRule(container.trigger_rule).value for container in containers(dag)}
    assert rules.pop("evaluate") == "all_done_min_one_success"
    assert set(rules.values()) == {"all_success"}
    exploring = dag.task_dict["exploring"]
    assert isinstance(exploring, PythonOperator)
    assert set(exploring.op_kwargs["models"]) == {*INDEPENDENT, *FLEMING}
    assert set(dag.params.get_param("models").schema["items"]["enum"]) == {*INDEPENDENT, *FLEMING}


def serialized(dag: DAG) -> SerializedDAG:
    """Serialize and deserialize the DAG, as for the scheduler."""
    from airflow.serialization.serialized_objects import DagSerialization

    written = json.dumps(DagSerialization.to_dict(dag))
    return DagSerialization.from_dict(json.loads(written))


def test_schedule_default_is_saturday_rounds(dag: DAG) -> None:
    assert isinstance(dag.timetable, NumeraiRounds)
    assert dag.timetable.summary == "Saturday rounds, from 12:00 UTC"
    assert dag.catchup is False


def test_schedule_survives_serialization(dag: DAG, monkeypatch: pytest.MonkeyPatch) -> None:
    assert serialized(dag).timetable.summary == "Saturday rounds, from 12:00 UTC"
    monkeypatch.setenv("NUMERAI_SCHEDULE", "thu,tue")
    load_settings.cache_clear()
    assert serialized(load_dag()).timetable.summary == "Tuesday and Thursday rounds, from 12:00 UTC"


@pytest.mark.parametrize(
    ("first", "last", "rounds"),
    [
        ("2026-07-18T00:00", "2026-08-09T00:00", ["2026-07-18", "2026-07-25", "2026-08-01", "2026-08-08"]),
        ("2026-07-18T12:00", "2026-07-25T12:00", ["2026-07-18", "2026-07-25"]),
        # a date alone is its midnight, before the day's round opens
        ("2026-07-18T12:01", "2026-08-01T00:00", ["2026-07-25"]),
    ],
)
def test_backfill_creates_runs_of_rounds_that_open_in_its_range(
    dag: DAG, first: str, last: str, rounds: list[str]
) -> None:
    from airflow.models.backfill import _get_info_list

    dates = (datetime.fromisoformat(f"{text}+00:00") for text in (first, last))
    runs = _get_info_list(dag=serialized(dag), from_date=next(dates), to_date=next(dates), reverse=False)
    assert [f"{run.run_after:%Y-%m-%d}" for run in runs] == rounds
    assert all(run.data_interval and run.data_interval.end == run.run_after for run in runs)


def test_backfill_of_a_stable_creates_runs_of_its_days(stables_file: Path) -> None:
    from airflow.models.backfill import _get_info_list

    stables_file.write_text(STABLES)
    dates = [datetime(2026, 7, day, tzinfo=UTC) for day in (18, 27)]
    found = {
        name: [
            f"{run.run_after:%a %d}"
            for run in _get_info_list(dag=serialized(dag), from_date=dates[0], to_date=dates[1], reverse=False)
        ]
        for name, dag in load_dags().items()
        if name != "numerai_housekeeping"
    }
    saturdays = ["Sat 18", "Sat 25"]
    assert found == {
        "numerai_tournament": saturdays,
        "numerai_monthly": saturdays,
        "numerai_weekday": ["Tue 21", "Wed 22", "Thu 23", "Fri 24"],
    }


def test_schedule_off_is_on_demand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SCHEDULE", "off")
    load_settings.cache_clear()
    timetable = serialized(load_dag()).timetable
    assert timetable.summary == "Saturday rounds, on demand"


def test_wait_for_round_defers_to_the_triggerer(dag: DAG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import TaskDeferred

    sensor = dag.task_dict["wait_for_round"]
    assert isinstance(sensor, RoundSensor)
    season = Season(tmp_path, SIZE, today=datetime(2026, 8, 15, 11, tzinfo=UTC))
    with running(season) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        load_settings.cache_clear()
        tomorrow = datetime.now(UTC) + timedelta(days=1)
        run = SimpleNamespace(
            dag_id=dag.dag_id,
            run_id="scheduled__1",
            run_type="scheduled",
            data_interval_end=tomorrow,
            logical_date=None,
        )
        context: Any = {"dag_run": run, "params": {**dag.params.dump(), "source": "practice"}}
        with pytest.raises(TaskDeferred) as deferred:
            sensor.execute(context)
    assert deferred.value.trigger.serialize()[0] == "numerai_pipeline.dag.round_trigger.RoundTrigger"


def test_broken_registry_is_an_import_error_with_remedy(
    images_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images_folder({"images": {}, "tasks": {}})))
    load_settings.cache_clear()
    bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
    assert "models.yaml: images" in next(iter(bag.import_errors.values()))


def test_parsing_does_not_import_data_libraries() -> None:
    script = (
        "import json, sys; sys.path[:0] = ['plugins', 'dags']; import airflow.sdk; before = set(sys.modules);"
        "import numerai_tournament, numerai_housekeeping; print(json.dumps(sorted(set(sys.modules))))"
    )
    environment = {**os.environ, "PYTHONPATH": "", "NUMERAI_APPROVE_SUBMISSIONS": "true"}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert {"numerai_pipeline.dag.tasks", "numerai_pipeline.dag.submission", "numerai_pipeline.dag.approval"} <= loaded
    assert "numerai_pipeline.dag.round_sensor" in loaded
    assert loaded.isdisjoint({"pandas", "numerapi", "numerai_tools", "pyarrow", "numpy"})


def test_templates_render_without_logical_date(dag: DAG) -> None:
    class UnpackedUpstream:
        def xcom_pull(self, task_ids: str) -> dict[str, str]:
            return {"unzip": {"directory": "rounds/1335/0123456789ab"}}[task_ids]

    parameters = {"seed": 5, "automl_minutes": 2}
    context: Any = {"params": parameters, "ti": UnpackedUpstream(), "logical_date": None, "dag_run": None}
    for container in containers(dag):
        container.render_template_fields(context)
        assert container.run_directory == "rounds/1335/0123456789ab"
        assert container.environment["SEED"] == "5"
        [mount] = container.mounts
        assert mount["Source"] == str(load_settings().data_dir / "work" / container.task_id)
        assert "{{" not in json.dumps(container.environment)


def test_environment_names_the_tables_of_the_contract(
    images_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {
        "images": {"classic": {"description": "x"}},
        "tasks": {
            "svm": task(keeps_model=True),
            "tsne": task(keeps_model=True, predicts=False),
            "trains_always": task(),
            "of_2018": task(tables="csv"),
        },
    }
    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images_folder(registry)))
    load_settings.cache_clear()
    names = ("TRAINING", "VALIDATION", "TESTING", "MODEL", "PREDICTING", "REPORTING")
    found = {
        container.task_id: [container.environment.get(name, "").removeprefix("/data/") for name in names]
        for container in containers(load_dag())
    }
    tables = ["training.parquet", "validation.parquet"]
    assert found == {
        "svm": [*tables, "live.parquet", "model", "predictions/svm.csv", "reports/svm.json"],
        "tsne": [*tables, "", "model", "", "reports/tsne.json"],
        "trains_always": [
            *("training.parquet", "", "tournament.parquet", ""),
            *("predictions/trains_always.csv", "reports/trains_always.json"),
        ],
        "of_2018": [
            *("training.csv", "", "tournament.csv", ""),
            *("predictions/of_2018.csv", "reports/of_2018.json"),
        ],
    }


def test_environment_of_a_search_has_time_limits(
    images_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {
        "images": {"classic": {"description": "x"}},
        "tasks": {"svm": task(), "auto_weka": task(search_parts=10)},
    }
    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images_folder(registry)))
    load_settings.cache_clear()
    dag = load_dag()
    search, other = dag.task_dict["auto_weka"], dag.task_dict["svm"]
    assert isinstance(search, ModelOperator)
    assert isinstance(other, ModelOperator)
    search.run_directory = "x"
    search.mounts = []
    search.render_template_fields({"params": {"seed": 5, "automl_minutes": 2}})
    assert (search.environment["TIME_LIMIT"], search.environment["TIME_LIMIT_PART"]) == ("120", "12")
    assert "TIME_LIMIT" not in other.environment
