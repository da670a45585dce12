"""Narrow tasks of other runs leave the pool to a wider task of the live run."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import TaskDeferred
from airflow.utils.types import DagRunType
from pendulum import instance

from numerai_pipeline.dag.model_operator import YIELD_TIME, ModelOperator
from numerai_pipeline.dag.run_dates import live_run_ids
from numerai_pipeline.dag.timetable import NumeraiRounds
from numerai_pipeline.models.registry import load_registry
from tests.samples import ROOT

SATURDAY = datetime(2026, 8, 15, 12, tzinfo=UTC)


def operator(name: str, **options: Any) -> ModelOperator:
    registry = load_registry(ROOT / "model_images")
    return ModelOperator(task_id=name, spec=registry.tasks[name], registry=registry, **options)


def context(kind: str, *waiting: str, dag: str = "numerai_tournament") -> Any:
    """Give the context of a run beside a live run in which these tasks wait for slots."""

    def count(dag_id: str, task_ids: list[str], run_ids: list[str], states: list[str]) -> int:
        assert states == ["scheduled"]
        assert all(run.startswith("scheduled__") for run in run_ids)
        return len(set(waiting).intersection(task_ids)) if dag_id == dag else 0

    ti = SimpleNamespace(dag_id="numerai_tournament", get_ti_count=count)
    return {"ti": ti, "dag_run": SimpleNamespace(run_type=kind)}


@pytest.mark.parametrize("kind", ["backfill", "manual"])
def test_narrow_task_leaves_its_slot_to_a_wider_live_task(kind: str) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        operator("svm")._yield_to_live_run(context(kind, "tsne"))
    assert deferred.value.method_name == "execute_again"
    _, arguments = deferred.value.trigger.serialize()
    assert arguments["moment"] - datetime.now(UTC) <= YIELD_TIME


@pytest.mark.parametrize(
    ("name", "kind", "waiting"),
    [
        ("svm", "scheduled", ["tsne"]),
        ("svm", "backfill", []),
        # it fits into the same slots, and has the higher priority
        ("svm", "backfill", ["xgboost"]),
        ("tpot", "backfill", ["tsne"]),
    ],
)
def test_task_keeps_its_slot_unless_a_wider_live_task_waits(name: str, kind: str, waiting: list[str]) -> None:
    operator(name)._yield_to_live_run(context(kind, *waiting))


def test_narrow_task_leaves_its_slot_to_a_live_task_of_another_stable() -> None:
    live = context("backfill", "tsne", dag="numerai_weekday")
    with pytest.raises(TaskDeferred):
        operator("svm", live_dags=("numerai_tournament", "numerai_weekday"))._yield_to_live_run(live)
    operator("svm")._yield_to_live_run(live)


def test_live_run_ids_are_those_of_the_schedule() -> None:
    ids = live_run_ids(SATURDAY + timedelta(hours=3))
    for days in (0, 1, 4, 7):
        opening = instance(SATURDAY - timedelta(days=days))
        run = NumeraiRounds("all").generate_run_id(run_type=DagRunType.SCHEDULED, run_after=opening, data_interval=None)
        assert run in ids
