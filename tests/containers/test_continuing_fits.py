"""A round that closes before a new fit is ready: an earlier fit predicts, and the next round uses the new one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from launcher.processes import wait_until
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.result_trigger import ResultTrigger
from numerai_pipeline.storage.continuing_fits import continuing_fits, may_continue
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.run_metadata import RunMetadata
from tests.containers.attempts import UnpackedRun
from tests.containers.test_shared_results import Deployment, go, predictions_of, record_of
from tests.containers.test_shared_results import deployment as deployment  # noqa: PLC0414 - a fixture

pytestmark = pytest.mark.containers

WAITS = {"svm": {"parameters": {"MODE": "wait at fit"}}}


def fitted(deployment: Deployment) -> UnpackedRun:
    """Make a run with a finished fit."""
    run = deployment.unpack("earlier")
    attempt = deployment.begin(run)
    go(deployment.waiting_container())
    assert attempt.outcome().state == "success"
    return run


def closing_run(deployment: Deployment, earlier: UnpackedRun, minutes: float = 0) -> UnpackedRun:
    """Unpack a run of another dataset that submits, and has some minutes for a new fit until its round closes."""
    run = deployment.unpack("saturday", every_nth_era=2, submit=True)
    closes = datetime.now(UTC) + timedelta(minutes=load_settings().fallback_minutes + minutes)
    more = json.loads(run.layout.run_metadata.read_text())
    metadata = RunMetadata.read(run.layout)
    known = RunMetadata.read(earlier.layout).dataset
    assert known != metadata.dataset
    replace(metadata, closes=closes.isoformat(), older_datasets=(known,)).write(run.layout, more)
    return run


def test_fit_that_is_not_ready_continues_and_serves_the_next_run(deployment: Deployment) -> None:
    deployment.define(WAITS)
    earlier = fitted(deployment)
    saturday = closing_run(deployment, earlier)
    missed = deployment.begin(saturday).outcome()
    # the earlier fit has predicted the same live rows before
    assert (missed.state, missed.started) == ("success", 1)
    assert "so fit" in missed.output
    assert "predicts, and the next round uses the new fit" in missed.output
    assert record_of(saturday).fit == record_of(earlier).fit
    assert predictions_of(saturday)
    container = deployment.waiting_container()
    data = DataLayout(load_settings().data_dir)
    (continuing,) = continuing_fits(data, "svm")
    assert may_continue(data, "svm", continuing.info.key)

    go(container)
    workspace = data.work("svm", continuing.info.key)
    assert wait_until((workspace / "model" / "model.json").is_file, 60, every=0.05)
    tuesday = deployment.unpack("tuesday", every_nth_era=2)
    later = deployment.attempt(tuesday)
    assert f"fit {continuing.info.key} of round archive is ready" in later.output
    # it only predicts
    assert (later.state, later.started) == ("success", 1)
    assert record_of(tuesday).fit == continuing.info.key
    assert list(continuing_fits(data, "svm")) == []
    assert deployment.leftovers() == []


def test_run_uses_the_earlier_fit_while_the_new_one_continues(deployment: Deployment) -> None:
    deployment.define(WAITS)
    earlier = fitted(deployment)
    saturday = closing_run(deployment, earlier)
    assert deployment.begin(saturday).outcome().state == "success"
    container = deployment.waiting_container()
    more = json.loads(saturday.layout.run_metadata.read_text())
    replace(RunMetadata.read(saturday.layout), prefers_finished=True).write(saturday.layout, more)
    again = deployment.attempt(saturday)
    assert (again.state, again.started) == ("success", 0)
    assert record_of(saturday).fit == record_of(earlier).fit
    assert [each.id for each in deployment.containers()] == [container.id]
    container.remove(force=True)


def test_fit_that_is_ready_in_time_predicts(deployment: Deployment) -> None:
    deployment.define(WAITS)
    earlier = fitted(deployment)
    saturday = closing_run(deployment, earlier, minutes=10)
    attempt = deployment.begin(saturday)
    attempt.wait_for("started container")
    go(deployment.waiting_container())
    assert attempt.outcome().state == "success"
    record = record_of(saturday)
    assert record.fit != record_of(earlier).fit
    # the predictions that would have been used
    assert record.fallback is not None
    assert record.fallback.fit == record_of(earlier).fit
    assert deployment.leftovers() == []


def test_run_waits_for_another_runs_fit_until_its_round_closes(deployment: Deployment) -> None:
    deployment.define(WAITS)
    earlier = fitted(deployment)
    making = deployment.begin(deployment.unpack("other", every_nth_era=2))
    container = deployment.waiting_container()
    saturday = closing_run(deployment, earlier, minutes=10)
    waiting = deployment.begin(saturday).outcome()
    assert waiting.state == "deferred"
    closes = datetime.fromisoformat(str(RunMetadata.read(saturday.layout).closes))
    assert closes - datetime.fromisoformat(waiting.detail["until"]) == timedelta(
        minutes=load_settings().fallback_minutes
    )

    async def fire() -> None:
        # as if that moment had come
        trigger = ResultTrigger(waiting.detail["task_name"], waiting.detail["key"], datetime.now(UTC).isoformat())
        async for _event in trigger.run():
            return

    asyncio.run(asyncio.wait_for(fire(), 60))
    saturday = closing_run(deployment, earlier)
    resumed = deployment.attempt(saturday, resumes=True)
    assert (resumed.state, resumed.started) == ("success", 0)
    assert record_of(saturday).fit == record_of(earlier).fit
    go(container)
    assert making.outcome().state == "success"
