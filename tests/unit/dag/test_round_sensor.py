"""The first task of a run: which runs wait for a round, and their results."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.api.datamodels._generated import DagRun, DagRunState, DagRunType
from airflow.sdk.bases.operator import TRIGGER_FAIL_REPR
from airflow.sdk.exceptions import AirflowFailException, TaskDeferred

from numerai_pipeline.core.parameters import RunParameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.closed_run import RAW_FILES, run_fingerprint
from numerai_pipeline.dag.round_sensor import LONGEST_WAIT, RoundSensor
from numerai_pipeline.dag.round_trigger import RoundTrigger
from numerai_pipeline.dag.run_dates import run_date
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.storage.layout import DataLayout
from practice.faults import Fault
from practice.rounds import round_open_at
from practice.season import Season
from practice.server import PracticeServer, running
from tests.clocked_season import SIZE, ClockedSeason, TimeMachine
from tests.samples import ROOT

pytestmark = pytest.mark.slow

SATURDAY = datetime(2026, 8, 15, 12, tzinfo=UTC)
OPENS = SATURDAY + timedelta(hours=1, minutes=12)
CLOSES = OPENS + timedelta(hours=48)
FOUND = {"round": 1334, "opens": OPENS.isoformat(), "closes": CLOSES.isoformat()}
DEFAULTS = RunParameters().model_dump()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("season")


@pytest.fixture
def server(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    with running(ClockedSeason(files, SATURDAY)) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        load_settings.cache_clear()
        yield server


@pytest.fixture
def season(server: PracticeServer) -> ClockedSeason:
    assert isinstance(server.season, ClockedSeason)
    return server.season


@pytest.fixture
def sensor(season: ClockedSeason) -> RoundSensor:
    return RoundSensor(task_id="wait_for_round", clock=season.now)


def a_run(
    kind: DagRunType = DagRunType.SCHEDULED, *, logical: datetime | None = None, end: datetime | None = SATURDAY
) -> DagRun:
    return DagRun(
        dag_id="numerai_tournament",
        run_id="a-run",
        logical_date=logical or (end and end - timedelta(days=7)),
        data_interval_start=end and end - timedelta(days=7),
        data_interval_end=end,
        run_after=end or SATURDAY,
        start_date=SATURDAY,
        end_date=None,
        run_type=kind,
        state=DagRunState.RUNNING,
        consumed_asset_events=[],
        partition_key=None,
    )


@dataclass
class StubTask:
    """Stores the XComs of the task."""

    pushed: dict[str, Any] = field(default_factory=dict)

    def xcom_push(self, key: str, value: Any) -> None:
        self.pushed[key] = value


def context(run: DagRun | None = None, **chosen: Any) -> Any:
    return {
        "dag_run": run or a_run(),
        "params": {**DEFAULTS, "source": "practice", **chosen},
        "ti": StubTask(),
    }


def asked(server: PracticeServer) -> int:
    return len(server.requests.entries())


def test_sensor_open_round_returns_without_the_triggerer(sensor: RoundSensor, season: ClockedSeason) -> None:
    season.clock = OPENS
    assert sensor.execute(context()) == FOUND


def test_sensor_cleared_after_the_close_passes_with_the_runs_own_data(
    sensor: RoundSensor, season: ClockedSeason, server: PracticeServer, tmp_path: Path
) -> None:
    raw = RawDataset("v5", "practice", "1334", "v5.3", {}, closes=CLOSES.isoformat())
    layout = DataLayout(tmp_path / "data").run("1334", run_fingerprint("numerai_tournament", "a-run"))
    layout.directory.mkdir(parents=True)
    layout.live.touch()
    layout.run_metadata.write_text(json.dumps({RAW_FILES: raw.to_json()}))
    season.clock = CLOSES + timedelta(days=30)
    assert sensor.execute(context()) == {"round": 1334, "opens": None, "closes": CLOSES.isoformat()}
    assert asked(server) == 0
    # until the close, the round is waited for as in the first attempt
    season.clock = OPENS
    assert sensor.execute(context()) == FOUND
    # a run without data has missed its round
    layout.run_metadata.unlink()
    season.clock = CLOSES + timedelta(days=30)
    with pytest.raises(AirflowFailException, match="missed round 1334"):
        sensor.execute(context())


def test_sensor_round_not_open_defers_to_the_triggerer(sensor: RoundSensor, season: ClockedSeason) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        sensor.execute(context(version="v5.3"))
    trigger = deferred.value.trigger
    assert isinstance(trigger, RoundTrigger)
    _, kept = trigger.serialize()
    assert kept == {"source": "practice", "day_opens": SATURDAY.isoformat(), "version": "v5.3"}
    assert deferred.value.timeout == LONGEST_WAIT

    machine = TimeMachine(season)

    async def fired() -> Any:
        waiting = RoundTrigger(**kept, clock=machine.now, sleep=machine.sleep)
        return [event.payload async for event in waiting.run()]

    [event] = asyncio.run(fired())
    assert sensor.resume_execution(deferred.value.method_name, {"event": event}, context()) == FOUND


@pytest.mark.parametrize(
    "bad_day",
    [
        Fault(kind="status", on="graphql", status=429, retry_after=60),
        Fault(kind="status", on="graphql", status=503),
        Fault(kind="html", on="graphql"),
        Fault(kind="graphql_error", on="graphql", message="Internal error"),
    ],
    ids=lambda fault: fault.kind,
)
def test_sensor_failing_server_defers_after_one_request(
    sensor: RoundSensor, server: PracticeServer, season: ClockedSeason, bad_day: Fault
) -> None:
    season.clock = OPENS
    server.faults.add(bad_day)
    with pytest.raises(TaskDeferred):
        sensor.execute(context())
    assert asked(server) == 1


def test_sensor_scheduled_run_too_late_fails_without_retry(sensor: RoundSensor, season: ClockedSeason) -> None:
    season.clock = SATURDAY + timedelta(days=4)
    late = context()
    with pytest.raises(AirflowFailException, match=r'missed round 1334 .* closed .*\{"round": 1334\}'):
        sensor.execute(late)
    assert late["ti"].pushed["missed"]["round"] == 1334


@pytest.mark.parametrize(("state", "pushed"), [("missed", ["missed"]), ("failed", [])])
def test_sensor_only_a_missed_round_is_marked_as_missed(sensor: RoundSensor, state: str, pushed: list[str]) -> None:
    waited = context()
    event = {"state": state, "reason": "nothing came", "round": None}
    with pytest.raises(AirflowFailException, match="nothing came"):
        sensor.resume_execution("execute_complete", {"event": event}, waited)
    assert list(waited["ti"].pushed) == pushed


def test_sensor_trigger_timeout_names_the_triggerer(sensor: RoundSensor) -> None:
    waited = context()
    with pytest.raises(AirflowFailException, match="the triggerer did not respond for 6 days"):
        sensor.resume_execution(TRIGGER_FAIL_REPR, {"error": "Trigger timeout"}, waited)
    assert waited["ti"].pushed["missed"]["round"] is None


@pytest.mark.parametrize(
    ("run", "chosen", "says"),
    [
        (a_run(DagRunType.MANUAL, end=None), {}, "not started by the schedule (manual)"),
        (a_run(DagRunType.MANUAL, logical=SATURDAY), {}, "not started by the schedule (manual)"),
        (a_run(DagRunType.BACKFILL), {}, "not started by the schedule (backfill)"),
        (a_run(DagRunType.ASSET_TRIGGERED, end=None), {}, "not started by the schedule (asset_triggered)"),
        (a_run(), {"source": "archive", "archive": "/some.zip"}, "an archive belongs to no open round"),
        (a_run(), {"round": 1332}, "the parameter 'round' is 1332"),
    ],
)
def test_sensor_run_that_needs_no_wait_logs_the_reason(
    sensor: RoundSensor,
    server: PracticeServer,
    capfd: pytest.CaptureFixture[str],
    run: DagRun,
    chosen: dict[str, Any],
    says: str,
) -> None:
    assert sensor.execute(context(run, **chosen)) is None
    assert asked(server) == 0
    assert says in "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", [DagRunType.MANUAL, DagRunType.SCHEDULED])
def test_sensor_invalid_parameters_fail_without_retry(
    sensor: RoundSensor, server: PracticeServer, kind: DagRunType
) -> None:
    with pytest.raises(AirflowFailException, match="choose source 'archive'"):
        sensor.execute(context(a_run(kind), archive="/some.zip"))
    with pytest.raises(AirflowFailException, match="seed=-1"):
        sensor.execute(context(a_run(kind), seed=-1))
    assert asked(server) == 0


def test_sensor_without_practice_url_names_the_setting(sensor: RoundSensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMERAI_PRACTICE_URL")
    load_settings.cache_clear()
    with pytest.raises(AirflowFailException, match="NUMERAI_PRACTICE_URL"):
        sensor.execute(context())


EARLIER = datetime(2026, 7, 3, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    ("run", "date"),
    [
        (a_run(DagRunType.SCHEDULED), SATURDAY),
        (a_run(DagRunType.BACKFILL), SATURDAY),
        # `airflow dags trigger --logical-date` derives the data interval from the moment of the trigger
        (a_run(DagRunType.MANUAL, logical=EARLIER), EARLIER),
        (a_run(DagRunType.MANUAL, end=None), None),
        (a_run(DagRunType.ASSET_TRIGGERED, end=None), None),
    ],
)
def test_run_date_each_kind_of_run_has_its_date(run: DagRun, date: datetime | None) -> None:
    assert run_date(run) == date


@pytest.fixture
def real_run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Any]]:
    """Run the first tasks of the DAG in the real Airflow, as a run of the schedule for a day."""

    def run(day_opens: datetime, *tasks: str) -> dict[str, Any]:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
        from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        from airflow.sdk.definitions.dag import _run_task
        from airflow.serialization.serialized_objects import DagSerialization
        from airflow.timetables.base import DagRunInfo
        from airflow.utils.db import initdb
        from airflow.utils.session import create_session
        from airflow.utils.state import DagRunState as State
        from airflow.utils.types import DagRunTriggeredByType
        from airflow.utils.types import DagRunType as Kind
        from pendulum import instance

        monkeypatch.setenv("NUMERAI_POOL", "default_pool")
        load_settings.cache_clear()
        initdb()
        bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
        dag = bag.dags["numerai_tournament"]
        DagBundlesManager().sync_bundles_to_db()  # type: ignore[no-untyped-call]
        sync_bag_to_db(bag, "dags-folder", None)
        kept = DagSerialization.from_dict(DagSerialization.to_dict(dag))
        info = DagRunInfo.interval(instance(day_opens) - timedelta(days=7), instance(day_opens))
        with create_session() as session:
            created = kept.create_dagrun(
                run_id=f"scheduled__{day_opens.isoformat()}",
                logical_date=info.logical_date,
                data_interval=info.data_interval,
                run_after=info.run_after,
                conf={"source": "practice"},
                run_type=Kind.SCHEDULED,
                triggered_by=DagRunTriggeredByType.TIMETABLE,
                state=State.RUNNING,
                session=session,
            )
            session.commit()
            outcome = {}
            for name in tasks:
                instance_of_task = created.get_task_instance(name, session=session)
                assert instance_of_task is not None
                instance_of_task.try_number += 1
                session.commit()
                _run_task(ti=instance_of_task, task=dag.task_dict[name], run_triggerer=True)
                session.expire_all()
                outcome[name] = (instance_of_task.state, instance_of_task.xcom_pull(task_ids=name))
            return outcome

    return run


def test_sensor_scheduled_run_downloads_the_round_of_the_trigger(
    tmp_path: Path, real_run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    current = round_open_at(now)
    with running(Season(tmp_path, SIZE, today=now)) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        # the first look fails, so the run goes by way of the trigger
        server.faults.add(Fault(kind="status", on="graphql", status=503))
        # half an hour early: by its date alone, the download would be of the round before
        outcome = real_run(current.opens - timedelta(minutes=30), "wait_for_round", "download")
    state, waited_for = outcome["wait_for_round"]
    assert (state, waited_for["round"]) == ("success", current.number)
    state, raw = outcome["download"]
    assert (state, raw["round"]) == ("success", str(current.number))


def test_sensor_real_run_of_a_closed_round_fails_after_one_attempt(
    tmp_path: Path, real_run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = datetime.now(UTC)
    before = type(round_open_at(now))(round_open_at(now).number - 1)
    with running(Season(tmp_path, SIZE, today=now)) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        outcome = real_run(before.opens, "wait_for_round")
    assert outcome["wait_for_round"] == ("failed", None)
