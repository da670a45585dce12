"""The run that submits again when a new fit is ready shortly before its round closes."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowSkipException, DagRunTriggerException, TaskDeferred

from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Submissions
from numerai_pipeline.dag.resubmission import TIME_TO_SUBMIT, LateFitTrigger, Resubmission
from numerai_pipeline.storage.continuing_fits import ContinuingFit
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.results import ResultInfo
from numerai_pipeline.storage.run_metadata import RunMetadata

CLOSES = datetime.now(UTC) + timedelta(hours=1)
DATASET = "aaaaaaaaaaaa"
INFO = ResultInfo("svm", "0123456789ab", "fit", "numerai-svm:1", DATASET, "1334", "numerai_tournament/a-run")


@pytest.fixture
def data() -> DataLayout:
    return DataLayout(load_settings().data_dir)


@pytest.fixture
def run(data: DataLayout, monkeypatch: pytest.MonkeyPatch) -> RunLayout:
    """A run that submits, whose data is unpacked."""
    monkeypatch.setenv("NUMERAI_PUBLIC_ID", "PUBLIC")
    monkeypatch.setenv("NUMERAI_SECRET_KEY", "secret")
    layout = data.run("1334", "a-run")
    layout.directory.mkdir(parents=True)
    now = datetime.now(UTC).isoformat()
    metadata = RunMetadata(
        "numerai_tournament", "a-run", "1334", now, CLOSES.isoformat(), DATASET, (), None, "0", False, True, "numerai"
    )
    metadata.write(layout, {})
    return layout


def context(run: RunLayout, **chosen: Any) -> Any:
    directory = str(run.directory.relative_to(load_settings().data_dir))
    values = {
        "unzip": {"directory": directory, "round": "1334", "era": None},
        "download": {"closes": CLOSES.isoformat()},
    }
    pushed: dict[str, Any] = {}
    return {
        "params": {**RunParameters().model_dump(), "models": ["svm"], "submit": True, **chosen},
        "dag_run": SimpleNamespace(run_type="manual", logical_date=None),
        "ti": SimpleNamespace(
            xcom_pull=lambda task_ids: values[task_ids], xcom_push=lambda key, value: pushed.update({key: value})
        ),
    }


def task() -> Resubmission:
    with DAG("numerai_tournament", schedule=None):
        return Resubmission(
            task_id="resubmit",
            trigger_dag_id="numerai_tournament",
            container_tasks=["svm", "xgboost"],
            submissions=Submissions({"alpha": "svm"}),
        )


def continues(data: DataLayout, info: ResultInfo = INFO, hours: float = 5) -> None:
    data.work(info.task, info.key).mkdir(parents=True)
    ContinuingFit(info, (datetime.now(UTC) + timedelta(hours=hours)).isoformat()).write(data)


def finish(data: DataLayout, info: ResultInfo = INFO) -> None:
    model = data.work(info.task, info.key) / "model" / "model.json"
    model.parent.mkdir()
    model.write_text("{}")


def fired(trigger: LateFitTrigger) -> Any:
    async def first() -> Any:
        return [event.payload async for event in trigger.run()]

    (payload,) = asyncio.run(asyncio.wait_for(first(), 60))
    return payload


@pytest.mark.parametrize(
    ("chosen", "reason"), [({"submit": False}, "not submitting"), ({}, "no fit of this run continues")]
)
def test_run_without_submission_or_continuing_fit_is_skipped(
    run: RunLayout, chosen: dict[str, Any], reason: str
) -> None:
    with pytest.raises(AirflowSkipException, match=reason):
        task().execute(context(run, **chosen))


def test_fits_of_another_dataset_or_beyond_their_time_are_not_waited_for(run: RunLayout, data: DataLayout) -> None:
    continues(data, replace(INFO, dataset="bbbbbbbbbbbb"))
    continues(data, replace(INFO, task="xgboost"), hours=-1)
    with pytest.raises(AirflowSkipException, match="no fit of this run continues"):
        task().execute(context(run))


def test_ready_fit_starts_a_run_of_the_round_that_replaces_the_submissions(run: RunLayout, data: DataLayout) -> None:
    continues(data)
    with pytest.raises(TaskDeferred) as deferred:
        task().execute(context(run, force=True))
    _, arguments = deferred.value.trigger.serialize()
    assert arguments["tasks"] == ["svm"]
    assert datetime.fromisoformat(arguments["until"]) == CLOSES - TIME_TO_SUBMIT
    finish(data)
    event = fired(LateFitTrigger(**json.loads(json.dumps(arguments))))
    assert event == {"ready": ["svm"]}
    with pytest.raises(DagRunTriggerException) as started:
        getattr(task(), deferred.value.method_name)(context(run, force=True), event)
    assert started.value.trigger_dag_id == "numerai_tournament"
    chosen = RunParameters.model_validate(started.value.conf)
    assert (chosen.round, chosen.submit, chosen.replace, chosen.force) == (1334, True, True, False)
    assert chosen.models == ["svm"]


def test_fit_that_is_not_ready_in_time_starts_nothing(run: RunLayout, data: DataLayout) -> None:
    continues(data)
    event = fired(LateFitTrigger(["svm"], DATASET, datetime.now(UTC).isoformat()))
    assert event == {"ready": []}
    with pytest.raises(AirflowSkipException, match="no new fit was ready 5 minutes before the round's close"):
        task().start_run(context(run), event)


def test_fit_that_is_found_too_late_starts_nothing(run: RunLayout, data: DataLayout) -> None:
    continues(data)
    finish(data)
    # such as in a run whose last model ended after the close
    assert fired(LateFitTrigger(["svm"], DATASET, datetime.now(UTC).isoformat())) == {"ready": []}
