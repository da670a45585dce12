"""The further targets of a run: in the environment of containers that learn them, with the time of each."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from numerai_pipeline.containers.task_plan import LIVE_TABLE, RunFiles
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.model_operator import ModelOperator, TaskRun
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import DataLayout
from tests.samples import ROOT
from tests.unit.containers.planned_run import add_dataset, finish, new_run

TARGETS = ("target_cyrusd_60", "target_ender_20")


def operator(name: str) -> ModelOperator:
    registry = load_registry(ROOT / "model_images")
    return ModelOperator(task_id=name, spec=registry.tasks[name], registry=registry)


@pytest.fixture
def data(tmp_path: Path) -> DataLayout:
    return DataLayout(tmp_path / "volume")


def environment(name: str, run: RunFiles) -> dict[str, str]:
    task = operator(name)
    plan = task.planner.plan(run, task.image, task.environment)
    return task._environment_of(plan, {LIVE_TABLE: run.layout.live})


def test_environment_has_the_further_targets_of_the_dataset(data: DataLayout) -> None:
    add_dataset(data, "new", targets=TARGETS)
    run = new_run(data)
    assert environment("xgboost", run)["TARGETS"] == "target_cyrusd_60,target_ender_20"
    assert "TARGETS" not in environment("auto_sklearn", run)


def test_environment_without_further_targets_is_as_before(data: DataLayout) -> None:
    add_dataset(data, "new")
    assert "TARGETS" not in environment("xgboost", new_run(data))


def test_environment_of_a_finished_fit_has_no_targets(data: DataLayout) -> None:
    add_dataset(data, "new", targets=TARGETS)
    run = new_run(data)
    task = operator("xgboost")
    finish(data, task.planner.plan(run, task.image, task.environment), prediction=False)
    assert {"TRAINING", "VALIDATION", "TARGETS"}.isdisjoint(environment("xgboost", run))


@pytest.mark.parametrize(("targets", "minutes"), [([], 600), (list(TARGETS), 1800)])
def test_time_limit_of_the_container_is_that_of_each_target(data: DataLayout, targets: list[str], minutes: int) -> None:
    add_dataset(data, "new", targets=tuple(targets))
    task, files = operator("xgboost"), new_run(data)
    ti = SimpleNamespace(dag_id="numerai_tournament", run_id="one", task_id="xgboost", try_number=1)
    context: Any = {"ti": ti}
    run = TaskRun(context, load_settings(), files, RunParameters(targets=targets))
    runner = task._new_runner(run, Workspace(data.work("xgboost", "0" * 64), {}), environment={})
    assert runner.request.time_limit == timedelta(minutes=minutes)


def test_longest_time_limit_is_that_of_the_most_targets() -> None:
    assert operator("xgboost").execution_timeout == timedelta(minutes=11 * 600)
    assert operator("evaluate").execution_timeout == timedelta(minutes=120)
