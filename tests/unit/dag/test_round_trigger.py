"""The real trigger, over real HTTP to the simulator, on a clock that the test moves."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.round_trigger import RoundTrigger
from practice.faults import Fault, Kind
from practice.rounds import SeasonRound
from practice.server import PracticeServer, running
from tests.clocked_season import ClockedSeason, NumeraisRound, TimeMachine
from tests.samples import ROOT

pytestmark = pytest.mark.slow

SATURDAY = datetime(2026, 8, 15, 12, tzinfo=UTC)
OPENS = SATURDAY + timedelta(hours=1, minutes=12)
CLOSES = OPENS + timedelta(hours=48)
TUESDAY = datetime(2026, 8, 11, 12, tzinfo=UTC)
POLL = 300.0
ALWAYS = 100_000


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("season")


@pytest.fixture
def server(files: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    season = ClockedSeason(files, SATURDAY)
    with running(season) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        yield server


@pytest.fixture(autouse=True)
def poll(server: PracticeServer, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    def choose(seconds: float) -> None:
        monkeypatch.setenv("NUMERAI_ROUND_POLL_SECONDS", str(seconds))
        load_settings.cache_clear()

    choose(POLL)
    return choose


@pytest.fixture
def season(server: PracticeServer) -> ClockedSeason:
    assert isinstance(server.season, ClockedSeason)
    return server.season


@pytest.fixture
def machine(season: ClockedSeason) -> TimeMachine:
    return TimeMachine(season)


def wait_for(machine: TimeMachine, day_opens: datetime = SATURDAY, version: str = "latest") -> dict[str, Any]:
    """Run a trigger to its end, as the triggerer does, from its stored arguments."""
    _, kept = RoundTrigger("practice", day_opens.isoformat(), version).serialize()
    trigger = RoundTrigger(**json.loads(json.dumps(kept)), clock=machine.now, sleep=machine.sleep)

    async def events() -> list[Any]:
        return [event.payload async for event in trigger.run()]

    [payload] = asyncio.run(events())
    json.dumps(payload)
    return dict(payload)


def fault(kind: Kind, **options: Any) -> Fault:
    return Fault(**{"kind": kind, "on": "graphql", **options})


READY = {"state": "ready", "round": 1334, "opens": OPENS.isoformat(), "closes": CLOSES.isoformat()}


def test_trigger_round_opens_fires_within_one_poll(machine: TimeMachine, season: ClockedSeason) -> None:
    payload = wait_for(machine)
    assert payload.items() >= READY.items()
    assert OPENS <= season.clock <= OPENS + timedelta(seconds=1.25 * POLL)
    assert all(POLL <= pause <= 1.25 * POLL for pause in machine.sleeps)
    assert len(set(machine.sleeps)) > 1, "polls of many installations must not come at the same moments"


def test_trigger_round_already_open_fires_without_waiting(machine: TimeMachine, season: ClockedSeason) -> None:
    season.clock = CLOSES - timedelta(minutes=1)
    assert wait_for(machine).items() >= READY.items()
    assert machine.sleeps == []


def test_trigger_open_round_of_the_previous_day_does_not_fire(machine: TimeMachine, season: ClockedSeason) -> None:
    class Overlapping(NumeraisRound):
        @property
        def closes(self) -> datetime:
            return self.opens + timedelta(hours=26)

    season.kind = Overlapping
    assert season.current_round().number == 1333
    assert season.current_round().status(season.clock) == "OPEN"
    assert wait_for(machine)["round"] == 1334


def test_trigger_outdated_live_data_waits_for_new_data(machine: TimeMachine, season: ClockedSeason) -> None:
    season.lagging = {1334}
    there = OPENS + timedelta(hours=3)
    machine.at(there, season.lagging.clear)
    assert wait_for(machine).items() >= READY.items()
    assert there <= season.clock <= there + timedelta(seconds=1.25 * POLL)


def test_trigger_live_data_outdated_until_the_close_is_missed(
    machine: TimeMachine, season: ClockedSeason, poll: Callable[[float], None]
) -> None:
    poll(3600)
    season.lagging = {1334}
    payload = wait_for(machine)
    assert payload["state"] == "missed"
    assert "missed round 1334 (Sat 2026-08-15 13:12 to Mon 2026-08-17 13:12 UTC)" in payload["reason"]
    assert 'trigger the DAG by hand with the round\'s number: {"round": 1334}' in payload["reason"]
    assert timedelta(0) <= season.clock - CLOSES <= timedelta(seconds=1)


@pytest.mark.parametrize("unsaid", ["no_etag", "no_date"])
def test_trigger_one_sign_of_new_data_fires(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason, unsaid: Kind
) -> None:
    server.faults.add(fault(unsaid, on="file", count=ALWAYS))
    season.lagging = {1334}
    there = OPENS + timedelta(hours=1)
    machine.at(there, season.lagging.clear)
    assert wait_for(machine).items() >= READY.items()
    assert season.clock >= there


def test_trigger_previous_round_not_served_detects_new_data(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.add(fault("no_date", on="file", count=ALWAYS))
    monkeypatch.setattr(season, "_served_rounds", 1)
    assert wait_for(machine).items() >= READY.items()


def test_trigger_same_data_for_every_round_compares_last_modified(machine: TimeMachine, season: ClockedSeason) -> None:
    season.sends_newest = True
    season.lagging = {1334}
    there = OPENS + timedelta(hours=2)
    machine.at(there, season.lagging.clear)
    assert wait_for(machine).items() >= READY.items()
    assert season.clock >= there


def test_trigger_no_sign_of_new_data_is_missed_at_the_close(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason, poll: Callable[[float], None]
) -> None:
    poll(3600)
    season.sends_newest = True
    server.faults.add(fault("no_date", on="file", count=ALWAYS))
    assert wait_for(machine)["state"] == "missed"
    assert timedelta(0) <= season.clock - CLOSES <= timedelta(seconds=1)


@pytest.mark.parametrize("days_late", [3, 30])
def test_trigger_run_days_late_is_missed_at_once(machine: TimeMachine, season: ClockedSeason, days_late: int) -> None:
    season.clock = SATURDAY + timedelta(days=days_late)
    payload = wait_for(machine)
    assert (payload["state"], machine.sleeps) == ("missed", [])
    assert "missed round 1334" in payload["reason"]


@pytest.mark.parametrize(
    ("day", "number", "patience"), [(SATURDAY, 1334, timedelta(hours=48)), (TUESDAY, 1330, timedelta(hours=24))]
)
def test_trigger_round_that_never_opens_is_missed(
    machine: TimeMachine, season: ClockedSeason, day: datetime, number: int, patience: timedelta
) -> None:
    season.cancelled = {number}
    season.clock = day
    payload = wait_for(machine, day)
    assert payload["state"] == "missed"
    assert f"missed the round of {day:%A %Y-%m-%d}: none was seen to open" in payload["reason"]
    assert payload["round"] is None
    assert timedelta(0) <= season.clock - day - patience <= timedelta(seconds=1)


def test_trigger_saturday_round_opening_on_sunday_fires(machine: TimeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumeraisRound, "late", {1334: timedelta(hours=21)})
    payload = wait_for(machine)
    assert (payload["state"], payload["round"]) == ("ready", 1334)


def test_trigger_round_closes_while_waiting_names_the_close(machine: TimeMachine, season: ClockedSeason) -> None:
    season.clock, season.lagging = TUESDAY, {1330}
    assert "it closed at Tue 2026-08-11 14:12 UTC" in wait_for(machine, TUESDAY)["reason"]


# a bad day's answers → how often each comes
BAD_DAYS: dict[str, list[Fault]] = {
    "429": [fault("status", status=429, count=6)],
    "503": [fault("status", status=503, count=6)],
    "HTML": [fault("html", count=6)],
    "refused": [fault("graphql_error", message="Internal error", count=6)],
    "403 of the file": [fault("status", on="file", status=403, count=6)],
    "404 of the file": [fault("status", on="file", status=404, count=6)],
    "HTML instead of the file": [fault("html", on="file", count=6)],
}


@pytest.mark.parametrize("faults", BAD_DAYS.values(), ids=BAD_DAYS.keys())
def test_trigger_failing_server_is_polled_until_it_answers(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason, faults: list[Fault]
) -> None:
    season.clock = OPENS
    server.faults.add(*faults)
    assert wait_for(machine).items() >= READY.items()
    assert len(machine.sleeps) == 6


@pytest.mark.parametrize("query", ["rounds(", "listDatasets(", "dataset("])
def test_trigger_no_current_round_is_polled_again(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason, query: str
) -> None:
    season.clock = OPENS
    server.faults.add(fault("graphql_error", message="Current round not open for submissions", match=query, count=2))
    assert wait_for(machine).items() >= READY.items()
    assert 1 <= len(machine.sleeps) <= 2


def test_trigger_failing_server_is_polled_with_backoff(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason, poll: Callable[[float], None]
) -> None:
    poll(60)
    server.faults.add(fault("status", status=503, count=6))
    season.clock = OPENS
    wait_for(machine)
    for pause, least in zip(machine.sleeps, [60, 120, 240, 480, 600, 600], strict=True):
        assert least <= pause <= min(least + 15, 600)


def test_trigger_answer_after_failures_resets_the_interval(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason
) -> None:
    server.faults.add(fault("status", status=503, count=3))
    wait_for(machine)
    assert all(POLL <= pause <= 1.25 * POLL for pause in machine.sleeps[3:])


def test_trigger_retry_after_is_respected(machine: TimeMachine, server: PracticeServer) -> None:
    server.faults.add(fault("status", status=429, retry_after=3000))
    assert wait_for(machine).items() >= READY.items()
    assert machine.sleeps[0] == 3000


def test_trigger_retry_after_ends_at_the_deadline(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason
) -> None:
    season.clock = OPENS
    season.lagging = {1334}
    machine.at(OPENS, lambda: server.faults.add(fault("status", status=429, retry_after=10**7)))
    payload = wait_for(machine)
    assert payload["state"] == "missed"
    assert timedelta(0) <= season.clock - CLOSES <= timedelta(seconds=1)


def test_trigger_server_without_answer_is_missed_at_the_deadline(
    machine: TimeMachine, server: PracticeServer, season: ClockedSeason
) -> None:
    server.faults.add(fault("status", status=503, count=ALWAYS))
    payload = wait_for(machine)
    assert payload["state"] == "missed"
    assert "the last query failed" in payload["reason"]
    assert "503" in payload["reason"]
    assert timedelta(0) <= season.clock - SATURDAY - timedelta(hours=48) <= timedelta(seconds=1)


def test_trigger_unknown_version_fails_at_once(machine: TimeMachine, season: ClockedSeason) -> None:
    season.clock = OPENS
    payload = wait_for(machine, version="v4.1")
    assert payload["state"] == "failed"
    assert "v4.1" in payload["reason"]
    assert machine.sleeps == []


def test_trigger_version_being_published_waits_for_its_files(
    machine: TimeMachine, season: ClockedSeason, monkeypatch: pytest.MonkeyPatch
) -> None:
    season.clock = OPENS
    names = season.names()
    monkeypatch.setattr(season, "names", lambda: [name for name in names if not name.endswith("/live.parquet")])
    machine.at(OPENS + timedelta(minutes=20), lambda: monkeypatch.setattr(season, "names", lambda: names))
    assert wait_for(machine, version="v5.3").items() >= READY.items()
    assert machine.sleeps


def test_trigger_missing_setting_fails_and_names_it(machine: TimeMachine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NUMERAI_PRACTICE_URL")
    load_settings.cache_clear()
    payload = wait_for(machine)
    assert payload["state"] == "failed"
    assert "NUMERAI_PRACTICE_URL" in payload["reason"]


def test_trigger_waiting_logs_at_most_every_ten_minutes(
    machine: TimeMachine, capfd: pytest.CaptureFixture[str], poll: Callable[[float], None]
) -> None:
    poll(60)
    wait_for(machine)
    lines = [line for line in "".join(capfd.readouterr()).splitlines() if "round_trigger" in line]
    assert "no round has opened on Saturday 2026-08-15 yet; until Mon 2026-08-17 12:00 UTC" in lines[0]
    assert "is open and its live data is available" in lines[-1]
    assert len(machine.sleeps) > 50
    assert 6 <= len(lines) <= 9


def test_trigger_restarted_triggerer_continues_from_its_arguments(machine: TimeMachine, season: ClockedSeason) -> None:
    async def stop_after_three(seconds: float) -> None:
        await machine.sleep(seconds)
        if len(machine.sleeps) == 3:
            raise asyncio.CancelledError

    trigger = RoundTrigger("practice", SATURDAY.isoformat(), "latest", clock=machine.now, sleep=stop_after_three)

    async def first() -> None:
        async for _ in trigger.run():
            pytest.fail("it fired before its time")

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(first())
    path, kept = trigger.serialize()
    assert path == "numerai_pipeline.dag.round_trigger.RoundTrigger"
    assert kept == {"source": "practice", "day_opens": SATURDAY.isoformat(), "version": "latest"}
    assert wait_for(machine).items() >= READY.items()


def test_trigger_classpath_is_found_by_the_triggerer(tmp_path: Path) -> None:
    script = (
        "import airflow.settings; airflow.settings.initialize();"
        "from airflow.jobs.triggerer_job_runner import TriggerRunner;"
        "print(TriggerRunner().get_trigger_by_classpath('numerai_pipeline.dag.round_trigger.RoundTrigger').__name__)"
    )
    environment = {**os.environ, "PYTHONPATH": "", "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins")}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "RoundTrigger"


def test_numerais_round_opens_at_the_hour_of_numerai() -> None:
    assert NumeraisRound(1334).opens == OPENS
    assert SeasonRound(1334).opens == SATURDAY
