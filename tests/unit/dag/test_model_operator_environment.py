"""The variables that a container gets by the plan of its results."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from numerai_pipeline.containers.task_plan import TaskPlanner
from numerai_pipeline.dag.model_operator import ModelOperator
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import DataLayout
from tests.samples import ROOT, payout
from tests.unit.containers.planned_run import IMAGE, add_dataset, new_run, record

SCORING = {"PAYOUT", "BENCHMARK"}


@pytest.mark.parametrize(("name", "is_scoring"), [("svm", False), ("ensemble", True), ("evaluate", True)])
def test_environment_has_payout_and_benchmark_for_scoring_tasks_only(
    tmp_path: Path, name: str, is_scoring: bool
) -> None:
    data = DataLayout(tmp_path)
    add_dataset(data, "new")
    run = new_run(data, payout=payout(60), benchmark="v53_lgbm_ender60")
    record(run, "svm", fit="f", prediction="p")
    registry = load_registry(ROOT / "model_images")
    operator = ModelOperator(task_id=name, spec=registry.tasks[name], registry=registry)
    plan = TaskPlanner(registry.tasks[name], registry).plan(run, IMAGE, operator.environment)
    found = operator._environment_of(plan, {})
    assert set(found) >= SCORING if is_scoring else SCORING.isdisjoint(found)
    assert (found["TARGET_DAYS"], found["EMBARGO"]) == ("20", "8")
    if is_scoring:
        assert found["BENCHMARK"] == "v53_lgbm_ender60"
        assert [score["multiplier"] for score in json.loads(found["PAYOUT"])] == [3.0, 15.0]
