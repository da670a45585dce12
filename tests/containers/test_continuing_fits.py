"""A round that closes before a new fit is ready: an earlier fit predicts, or the run goes on without the model."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from launcher.processes import wait_until
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.result_trigger import ResultTrigger
from numerai_pipeline.storage.continuing_fits import continuing_fits, may_continue
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.run_metadata import RunMetadata
from numerai_pipeline.storage.task_records import read_record
from tests.containers.attempts import Outcome, UnpackedRun
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


def closing_run(
    deployment: Deployment, earlier: UnpackedRun | None, minutes: float = 0, **parameters: Any
) -> UnpackedRun:
    """Unpack a run of another dataset that submits, and has some minutes for a new fit until its round closes."""
    run = deployment.unpack("saturday", every_nth_era=2, submit=True, **parameters)
    closes = datetime.now(UTC) + timedelta(minutes=load_settings().fallback_minutes + minutes)
    more = json.loads(run.layout.run_metadata.read_text())
    metadata = replace(RunMetadata.read(run.layout), closes=closes.isoformat())
    if earlier is not None:
        known = RunMetadata.read(earlier.layout).dataset
        assert known != metadata.dataset
        metadata = replace(metadata, older_datasets=(known,))
    metadata.write(run.layout, more)
    return run


def outcome_with_unfinished_fit(deployment: Deployment, earlier: UnpackedRun | None) -> tuple[UnpackedRun, Outcome]:
    """Begin a fit, and let its time end while its container runs."""
    killed = deployment.begin(closing_run(deployment, earlier, minutes=600))
    deployment.waiting_container()
    killed.kill()
    run = closing_run(deployment, earlier)
    return run, deployment.begin(run).outcome()


def test_fit_that_is_not_ready_continues_and_serves_the_next_run(deployment: Deployment) -> None:
    deployment.define(WAITS)
    earlier = fitted(deployment)
    saturday, missed = outcome_with_unfinished_fit(deployment, earlier)
    # the earlier fit has predicted the same live rows before
    assert (missed.state, missed.started) == ("success", 0)
    assert "svm: its new fit is not ready; the round closes at" in missed.output
    assert "so fit" in missed.output
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
    saturday, missed = outcome_with_unfinished_fit(deployment, earlier)
    assert missed.state == "success"
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


def test_without_an_earlier_fit_the_run_goes_on_without_the_model(deployment: Deployment) -> None:
    deployment.define(WAITS)
    saturday, missed = outcome_with_unfinished_fit(deployment, None)
    assert missed.state == "failed"
    # not retried
    assert missed.detail.startswith("AirflowFailException: svm: its new fit is not ready; the round closes at")
    assert missed.detail.endswith(
        "(NUMERAI_FALLBACK_MINUTES=20), and there is no earlier fit: the run continues without this task"
    )
    assert read_record(saturday.layout, "svm") is None

    # once the fit is ready, the cleared task uses it, and so do later runs
    container = deployment.waiting_container()
    go(container)
    data = DataLayout(load_settings().data_dir)
    (continuing,) = continuing_fits(data, "svm")
    workspace = data.work("svm", continuing.info.key)
    assert wait_until((workspace / "model" / "model.json").is_file, 60, every=0.05)
    cleared = deployment.attempt(saturday, number=2)
    assert (cleared.state, cleared.started) == ("success", 1)
    assert record_of(saturday).fit == continuing.info.key
    assert deployment.leftovers() == []


def test_fit_for_which_there_is_no_time_does_not_begin(deployment: Deployment) -> None:
    deployment.define(WAITS)
    saturday = closing_run(deployment, None)
    late = deployment.attempt(saturday)
    assert (late.state, late.started) == ("failed", 0)
    assert "svm: there is no time for a new fit; the round closes at" in late.detail
    assert deployment.leftovers() == []


def test_container_of_an_image_that_keeps_no_model_does_not_continue(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "hang"}, "keeps_model": False}})
    killed = deployment.begin(closing_run(deployment, None, minutes=600))
    killed.wait_for("started container")
    killed.kill()
    missed = deployment.attempt(closing_run(deployment, None))
    assert (missed.state, missed.started) == ("failed", 0)
    assert deployment.leftovers() == []


def test_search_ends_with_its_fits_before_the_round_closes(deployment: Deployment) -> None:
    deployment.define({"svm": {"parameters": {"MODE": "wait at fit"}, "search_parts": 4}})
    attempt = deployment.begin(closing_run(deployment, None, minutes=70, automl_minutes=60))
    container = deployment.waiting_container()
    environment = dict(entry.split("=", 1) for entry in container.attrs["Config"]["Env"])
    seconds = int(environment["TIME_LIMIT"])
    # of 70 minutes, some of which may have passed
    assert 15 * 60 < seconds <= 20 * 60
    assert int(environment["TIME_LIMIT_PART"]) == seconds // 4
    assert f"the search is limited to {seconds} of 3600 s" in attempt.output
    go(container)
    assert attempt.outcome().state == "success"
    # it is the result of a run with more time
    again = deployment.attempt(deployment.unpack("tuesday", every_nth_era=2, automl_minutes=60))
    assert (again.state, again.started) == ("success", 0)
