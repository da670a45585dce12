"""The alarm before a round closes with nothing submitted."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import DAG, BaseNotifier
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferred

from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Submissions
from numerai_pipeline.dag.deadline import DeadlineAlarm
from practice.rounds import round_open_at
from practice.season import Season
from practice.server import running
from tests.clocked_season import SIZE

OPENS = datetime(2026, 8, 15, 13, tzinfo=UTC)
CLOSES = OPENS + timedelta(hours=1)
SENT: list[Any] = []


class Recorder(BaseNotifier):
    """Stores events in this process."""

    def notify(self, context: Any) -> None:
        SENT.append(context["event"])


@dataclass
class StubTask:
    """A task instance whose run's tasks have these states."""

    states: dict[str, str | None] = field(default_factory=dict)
    waited_for: dict[str, Any] | None = field(default_factory=lambda: {"round": 1334, "closes": CLOSES.isoformat()})
    task_id: str = "deadline"

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> dict[str, Any] | None:
        return self.waited_for if (task_ids, key) == ("wait_for_round", "return_value") else None

    def get_task_states(self, run_ids: list[str], **_: str) -> dict[str, Any]:
        return {run_ids[0]: self.states}


@pytest.fixture(autouse=True)
def notifier(monkeypatch: pytest.MonkeyPatch) -> None:
    SENT.clear()
    monkeypatch.setenv("NUMERAI_NOTIFIER", f"{__name__}.Recorder")


def context(ti: StubTask | None = None, kind: str = "scheduled", **chosen: Any) -> Any:
    return {
        "dag": DAG("numerai_tournament", schedule=None),
        "run_id": "a-run",
        "dag_run": SimpleNamespace(run_type=kind, logical_date=None, data_interval_end=OPENS),
        "params": {**RunParameters().model_dump(), "source": "practice", "submit": True, **chosen},
        "ti": ti or StubTask(),
    }


def alarm_at(moment: datetime, *, scheduled: bool = False) -> DeadlineAlarm:
    submissions = Submissions({"alpha": "svm"}, scheduled)
    return DeadlineAlarm(task_id="deadline", submissions=submissions, clock=lambda: moment)


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ({"submit": False}, "does not submit"),
        ({"submit": None}, "does not submit"),
        ({"kind": "backfill"}, "does not submit"),
        ({"source": "archive", "archive": "/some.zip"}, "does not submit"),
    ],
)
def test_deadline_run_without_submission_is_skipped(chosen: dict[str, Any], reason: str) -> None:
    with pytest.raises(AirflowSkipException, match=reason):
        alarm_at(OPENS).execute(context(**chosen))


def test_deadline_of_a_scheduled_run_follows_the_stable() -> None:
    with pytest.raises(TaskDeferred):
        alarm_at(OPENS, scheduled=True).execute(context(submit=None))
    with pytest.raises(AirflowSkipException, match="does not submit"):
        alarm_at(OPENS, scheduled=True).execute(context(submit=None, kind="manual"))


def test_deadline_after_the_close_is_skipped() -> None:
    with pytest.raises(AirflowSkipException, match="the round closed at Sat 2026-08-15 14:00 UTC"):
        alarm_at(CLOSES).execute(context())


def test_deadline_waits_without_a_slot_for_submit_or_the_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_ALARM_MINUTES", "20")
    with pytest.raises(TaskDeferred) as deferred:
        alarm_at(OPENS).execute(context())
    assert deferred.value.timeout == timedelta(minutes=40)
    _, arguments = deferred.value.trigger.serialize()
    assert (arguments["external_task_ids"], arguments["run_ids"]) == (["submit"], ["a-run"])
    assert {"success", "failed", "upstream_failed", "skipped"} <= set(arguments["allowed_states"])
    alarm_at(OPENS).resume_execution(deferred.value.method_name, {"event": {"status": "success"}}, context())
    assert SENT == []


UNFINISHED = {
    "wait_for_round": "success",
    "deadline": "running",
    "svm": "running",
    "tsne": "failed",
    "tpot": "upstream_failed",
    "submit": None,
}


@pytest.mark.parametrize("minutes", [5, 20])
def test_deadline_with_nothing_submitted_notifies(minutes: int) -> None:
    ti = StubTask(UNFINISHED)
    if minutes < 15:  # the run began when the moment of the alarm was over
        alarm_at(CLOSES - timedelta(minutes=minutes)).execute(context(ti))
    else:
        alarm_at(OPENS).resume_execution(TRIGGER_FAIL_REPR, {"error": "Trigger timeout"}, context(ti))
    [event] = SENT
    assert (event.event, event.round, event.state, event.failed) == ("deadline", "1334", "running", ["tsne"])
    assert event.text == (
        "numerai_tournament: round 1334 closes at Sat 14:00 UTC, and `submit` has not submitted"
        " (unfinished: submit, svm; failed: tsne)"
    )


@pytest.mark.parametrize("state", ["success", "failed", "upstream_failed", "skipped"])
def test_deadline_after_submit_has_ended_is_silent(state: str) -> None:
    ended = context(StubTask({**UNFINISHED, "submit": state}))
    alarm_at(OPENS).resume_execution(TRIGGER_FAIL_REPR, {"error": "Trigger timeout"}, ended)
    assert SENT == []


def test_deadline_wrong_notification_settings_skip_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_ALARM_MINUTES", "soon")
    with pytest.raises(AirflowSkipException, match="NUMERAI_ALARM_MINUTES='soon'"):
        alarm_at(OPENS).execute(context())


@pytest.mark.slow
def test_deadline_manual_run_gets_the_close_from_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    current = round_open_at(now)
    with running(Season(tmp_path, SIZE, today=now)) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        load_settings.cache_clear()
        with pytest.raises(TaskDeferred) as deferred:
            alarm_at(current.closes - timedelta(minutes=45)).execute(context(StubTask(waited_for=None), "manual"))
    assert deferred.value.timeout == timedelta(minutes=30)
