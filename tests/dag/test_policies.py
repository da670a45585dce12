"""What every DAG of this bundle keeps to, and the shape of the graph."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from numerai_pipeline.model_operator import ModelOperator
from numerai_pipeline.settings import load_settings
from tests.samples import FLEMING, INDEPENDENT, ROOT, task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk import DAG


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


def test_there_are_two_dags() -> None:
    assert sorted(load_dags()) == ["numerai_housekeeping", "numerai_tournament"]


@pytest.mark.parametrize(("name", "tells"), [("numerai_tournament", "exploring"), ("numerai_housekeeping", "Dry run")])
def test_every_dag_is_documented_owned_and_tagged(name: str, tells: str) -> None:
    dag = load_dags()[name]
    assert tells in (dag.doc_md or "")
    assert dag.description
    assert "numerai" in dag.tags
    assert {task.owner for task in dag.tasks} == {"numerai"}
    assert all(task.doc_md for task in dag.tasks)


def test_every_task_ends_some_day_and_is_tried_again() -> None:
    tasks = [task for dag in load_dags().values() for task in dag.tasks]
    assert all(task.execution_timeout is not None for task in tasks)
    assert all(task.retries for task in tasks)


def test_housekeeping_is_weekly_and_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.timetables.trigger import CronTriggerTimetable

    dag = load_dags()["numerai_housekeeping"]
    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.summary == "0 3 * * 1"
    assert dag.max_active_runs == 1
    upstream = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert upstream == {"containers": set(), "runs": {"containers"}, "downloads": {"runs"}}
    monkeypatch.setenv("NUMERAI_HOUSEKEEPING", "false")
    load_settings.cache_clear()
    assert load_dags()["numerai_housekeeping"].schedule is None


def test_housekeepings_form_begins_with_the_settings_and_keeps_their_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.sdk.exceptions import ParamValidationError

    monkeypatch.setenv("NUMERAI_KEEP_ROUNDS", "3")
    monkeypatch.setenv("NUMERAI_KEEP_DAYS", "30")
    load_settings.cache_clear()
    params = load_dags()["numerai_housekeeping"].params
    assert params.dump() == {"dry_run": False, "keep_rounds": 3, "keep_days": 30}
    for name, value in {"keep_days": 6, "keep_rounds": 0, "dry_run": "no"}.items():
        with pytest.raises(ParamValidationError):
            params.get_param(name).resolve(value)


def test_every_container_task_keeps_the_policies(dag: DAG) -> None:
    assert len(containers(dag)) == 14
    for container in containers(dag):
        assert container.pool == "numerai_models", container.task_id
        assert container.pool_slots == container.spec.cores, container.task_id
        assert container.retries == 3, container.task_id
        assert container.retry_exponential_backoff, container.task_id
        assert container.spec.memory >= 64, container.task_id
        assert container.environment["MEMORY_LIMIT"] == str(container.spec.memory), container.task_id
        assert container.image.startswith(f"numerai-{container.spec.image.replace('_', '-')}:"), container.task_id


def test_the_graph_has_the_shape_of_the_mission(dag: DAG) -> None:
    upstream = {task.task_id: task.upstream_task_ids for task in dag.tasks}
    assert upstream["download"] == set()
    assert upstream["unzip"] == {"download"}
    assert all(upstream[model] == {"unzip"} for model in (*INDEPENDENT, "adversarial_validation"))
    assert upstream["tsne"] == {"adversarial_validation"}
    assert all(upstream[model] == {"tsne"} for model in FLEMING)
    assert upstream["exploring"] == {*INDEPENDENT, *FLEMING}
    assert {task.task_id for task in dag.task_group.get_task_group_dict()["fleming"]} == set(FLEMING)


def test_a_week_belongs_to_the_round_at_its_end(dag: DAG) -> None:
    from airflow.timetables.trigger import CronTriggerTimetable

    assert isinstance(dag.timetable, CronTriggerTimetable)
    assert dag.timetable.summary == "0 13 * * 6"
    assert dag.catchup is False


def test_the_schedule_can_be_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SCHEDULE", "off")
    load_settings.cache_clear()
    assert load_dag().schedule is None


def test_a_broken_registry_is_an_import_error_that_says_what_to_do(
    images_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images_folder({"images": {}, "tasks": {}})))
    load_settings.cache_clear()
    bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
    assert "models.yaml: images" in next(iter(bag.import_errors.values()))


def test_parsing_imports_nothing_heavy() -> None:
    script = (
        "import json, sys; sys.path[:0] = ['plugins', 'dags']; import airflow.sdk; before = set(sys.modules);"
        "import numerai_tournament, numerai_housekeeping; print(json.dumps(sorted(set(sys.modules))))"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert "numerai_pipeline.steps" in loaded
    assert loaded.isdisjoint({"pandas", "numerapi", "pyarrow", "docker", "numpy", "requests"})


def test_templates_render_without_a_logical_date(dag: DAG) -> None:
    class UnpackedUpstream:
        def xcom_pull(self, task_ids: str) -> dict[str, str]:
            return {"unzip": {"directory": "rounds/1335/0123456789ab"}}[task_ids]

    parameters = {"seed": 5, "automl_minutes": 2}
    context: Any = {"params": parameters, "ti": UnpackedUpstream(), "logical_date": None, "dag_run": None}
    for container in containers(dag):
        container.render_template_fields(context)
        assert container.run_directory == "rounds/1335/0123456789ab"
        assert container.environment["SEED"] == "5"
        assert "{{" not in json.dumps(container.environment)


def test_a_search_is_told_its_minutes_and_others_are_not(
    images_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = {
        "images": {"classic": {"about": "x"}},
        "tasks": {"svm": task(), "auto_weka": task(search_parts=10)},
    }
    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images_folder(registry)))
    load_settings.cache_clear()
    dag = load_dag()
    search, other = dag.task_dict["auto_weka"], dag.task_dict["svm"]
    assert isinstance(search, ModelOperator)
    assert isinstance(other, ModelOperator)
    search.run_directory = "x"
    search.render_template_fields({"params": {"seed": 5, "automl_minutes": 2}})
    assert (search.environment["TIME_LIMIT"], search.environment["TIME_LIMIT_PART"]) == ("120", "12")
    assert "TIME_LIMIT" not in other.environment
