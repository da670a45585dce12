"""The calendars: numbers, days, eras, and when a round is open."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest

from practice.model import SeasonSize
from practice.rounds import FIRST_ERA, SeasonRound, StrictRound, era_label, round_open_at
from practice.season import Season

SMALL = SeasonSize(rows_per_era=10, train_eras=3, validation_eras=15, small=4, medium=6, all_features=8)
# facts about Numerai: number and day of a round
KNOWN_DAYS = {
    1099: date(2025, 9, 20),
    1100: date(2025, 9, 23),
    1334: date(2026, 8, 15),
    1343: date(2026, 8, 28),
    1344: date(2026, 8, 29),
    1359: date(2026, 9, 19),
}


@pytest.mark.parametrize("number", KNOWN_DAYS)
def test_round_number_has_the_day_that_numerai_gave_it(number: int) -> None:
    assert SeasonRound(number).day == KNOWN_DAYS[number]
    assert (number % 5 == 4) == (SeasonRound(number).day.strftime("%A") == "Saturday")


def test_always_open_round_closes_when_the_next_opens() -> None:
    assert SeasonRound(1334).opens == datetime(2026, 8, 15, 12, tzinfo=UTC)
    assert SeasonRound(1334).closes == datetime(2026, 8, 18, 12, tzinfo=UTC)


def test_rounds_of_a_week_open_on_five_days_and_share_an_era() -> None:
    week = [SeasonRound(number) for number in range(1335, 1340)]
    assert [found.day.strftime("%a") for found in week] == ["Tue", "Wed", "Thu", "Fri", "Sat"]
    assert {found.era for found in week} == {SeasonRound(1334).era + 1}


@pytest.mark.parametrize("number", [1, 1000, 1333, 1334, 1335, 1404, 3000])
def test_era_is_the_week_whose_friday_ends_the_data_of_its_rounds(number: int) -> None:
    season_round = SeasonRound(number)
    friday = FIRST_ERA + timedelta(weeks=season_round.era - 1)
    assert friday.strftime("%A") == "Friday"
    last_day_of_data = season_round.day - timedelta(days=1)
    assert last_day_of_data <= friday < last_day_of_data + timedelta(days=5)


def test_always_open_calendar_has_one_open_round_at_every_moment() -> None:
    moment = datetime(2026, 8, 10, 0, 30, tzinfo=UTC)
    for _ in range(24 * 21):
        found = round_open_at(moment)
        assert found.opens <= moment < found.closes
        moment += timedelta(hours=1)


def test_moment_of_another_time_zone_has_the_same_round() -> None:
    in_tokyo = datetime(2026, 8, 15, 20, 59, tzinfo=timezone(timedelta(hours=9)))
    assert round_open_at(in_tokyo).number == 1333
    assert round_open_at(in_tokyo + timedelta(minutes=1)).number == 1334


def test_strict_rounds_keep_numerais_hours_and_open_late() -> None:
    delays = set()
    for number in range(1000, 1500):
        found = StrictRound(number, seed=7)
        noon = datetime.combine(found.day, datetime.min.time(), tzinfo=UTC) + timedelta(hours=12)
        delays.add((found.opens - noon) / timedelta(minutes=1))
        if number % 5 == 4:
            assert found.closes == noon + timedelta(hours=26)
        else:
            assert found.closes == found.opens + timedelta(hours=1)
    assert min(delays) == 0
    assert max(delays) == 70
    assert len(delays) == 71


def test_strict_round_has_the_same_hours_for_the_same_seed() -> None:
    assert StrictRound(1334, seed=7).opens == StrictRound(1334, seed=7).opens
    assert len({StrictRound(1334, seed=seed).opens for seed in range(20)}) > 5


def test_strict_season_keeps_the_last_round_current_between_windows(tmp_path: Path) -> None:
    def season(now: datetime) -> Season:
        return Season(tmp_path, SMALL, seed=7, today=now, calendar="strict")

    tuesday = StrictRound(1335, seed=7)
    assert tuesday.opens > datetime(2026, 8, 18, 12, tzinfo=UTC)
    before, within, after = (tuesday.opens + timedelta(minutes=minutes) for minutes in (-1, 1, 61))
    assert [season(now).current_round().number for now in (before, within, after)] == [1334, 1335, 1335]
    assert [season(now).current_round().status(now) for now in (before, within, after)] == [
        "RESOLVING",
        "OPEN",
        "RESOLVING",
    ]
    assert season(within).rounds()[0] == tuesday


def test_era_label_has_four_digits() -> None:
    assert [era_label(1), era_label(574), era_label(1233)] == ["0001", "0574", "1233"]
