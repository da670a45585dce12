"""Submissions around outages and closes of the strict calendar, on a clock that the test moves."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path

import numerapi
import pytest
from numerapi import base_api

from practice.faults import Fault
from practice.rounds import StrictRound
from practice.server import PracticeServer, running
from tests.clocked_season import ClockedSeason, TimeMachine
from tests.recorded.answers import recorded
from tests.unit.practice.simulator import ACCOUNT, example_predictions, latest_entries, make_client

TUESDAY = StrictRound(1335, seed=7)
OUTAGE = Fault(
    kind="graphql_error",
    on="graphql",
    match="create_submission(",
    message=recorded("error_live_ids_missing").answer["errors"][0]["message"],
)


@pytest.fixture
def season(tmp_path: Path) -> ClockedSeason:
    season = ClockedSeason(tmp_path / "season", TUESDAY.opens)
    season.kind = partial(StrictRound, seed=7)
    return season


@pytest.fixture
def clocked_server(season: ClockedSeason, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    with running(season, [ACCOUNT]) as server:
        monkeypatch.setattr(base_api, "API_TOURNAMENT_URL", server.address)
        yield server


def submit_with_retries(api: numerapi.NumerAPI, season: ClockedSeason, machine: TimeMachine) -> int:
    """Submit, with a pause of 5 minutes after each failure; returns the attempts."""
    model = api.get_models()["alpha"]
    for attempt in range(1, 50):
        try:
            api.upload_predictions(model_id=model, df=example_predictions(season, season.current_round().number))
        except ValueError:
            machine.block(300)
        else:
            return attempt
    raise AssertionError


@pytest.mark.parametrize(
    ("minutes", "attempts", "entries"),
    [
        (25, 6, [(1335, "on-time"), (1334, "none")]),
        (75, 16, [(1336, "queued"), (1335, "late"), (1334, "none")]),
    ],
    ids=["inside the open hour", "beyond the close"],
)
def test_outage_ends_with_one_submission(
    clocked_server: PracticeServer,
    season: ClockedSeason,
    minutes: int,
    attempts: int,
    entries: list[tuple[int, str]],
) -> None:
    machine = TimeMachine(season)
    machine.outage(clocked_server.faults, OUTAGE, TUESDAY.opens, minutes)
    api = make_client()
    assert submit_with_retries(api, season, machine) == attempts
    assert season.clock == TUESDAY.opens + timedelta(minutes=minutes)
    assert latest_entries(api) == entries
    assert len(clocked_server.store.submissions(api.get_models()["alpha"])) == 1


def test_outage_that_begins_later_lets_earlier_requests_pass(
    clocked_server: PracticeServer, season: ClockedSeason
) -> None:
    machine = TimeMachine(season)
    machine.outage(clocked_server.faults, OUTAGE, TUESDAY.opens + timedelta(minutes=2), 10)
    api = make_client()
    assert submit_with_retries(api, season, machine) == 1
    machine.block(180)
    assert submit_with_retries(api, season, machine) == 3


def test_submission_between_windows_is_queued_until_the_next_opens(
    clocked_server: PracticeServer, season: ClockedSeason
) -> None:
    season.clock = TUESDAY.closes
    api = make_client()
    submit_with_retries(api, season, TimeMachine(season))
    assert latest_entries(api) == [(1336, "queued"), (1335, "late"), (1334, "none")]
    season.clock = season.round(1336).opens
    assert latest_entries(api) == [(1336, "on-time"), (1335, "late")]
