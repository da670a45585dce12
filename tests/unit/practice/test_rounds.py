"""The calendar: numbers, days and eras."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from practice.rounds import FIRST_ERA, SeasonRound, era_label, round_open_at


def test_round_1334_is_the_saturday_round_of_mid_august_2026() -> None:
    season_round = SeasonRound(1334)
    assert season_round.day == date(2026, 8, 15)
    assert season_round.day.strftime("%A") == "Saturday"
    assert season_round.opens == datetime(2026, 8, 15, 12, tzinfo=UTC)
    assert season_round.closes == datetime(2026, 8, 18, 12, tzinfo=UTC)


def test_five_rounds_a_week_open_from_tuesday_to_saturday_and_share_its_era() -> None:
    week = [SeasonRound(number) for number in range(1335, 1340)]
    assert [found.day.strftime("%a") for found in week] == ["Tue", "Wed", "Thu", "Fri", "Sat"]
    assert {found.era for found in week} == {SeasonRound(1334).era + 1}


@pytest.mark.parametrize("number", [1, 1000, 1333, 1334, 1335, 1404, 3000])
def test_an_era_is_the_week_whose_friday_ends_the_data_of_its_rounds(number: int) -> None:
    season_round = SeasonRound(number)
    friday = FIRST_ERA + timedelta(weeks=season_round.era - 1)
    assert friday.strftime("%A") == "Friday"
    last_day_of_data = season_round.day - timedelta(days=1)
    assert last_day_of_data <= friday < last_day_of_data + timedelta(days=5)


def test_every_moment_has_exactly_one_open_round() -> None:
    moment = datetime(2026, 8, 10, 0, 30, tzinfo=UTC)
    for _ in range(24 * 21):
        found = round_open_at(moment)
        assert found.opens <= moment < found.closes
        moment += timedelta(hours=1)


def test_moments_are_compared_across_time_zones() -> None:
    in_tokyo = datetime(2026, 8, 15, 20, 59, tzinfo=timezone(timedelta(hours=9)))
    assert round_open_at(in_tokyo).number == 1333
    assert round_open_at(in_tokyo + timedelta(minutes=1)).number == 1334


def test_eras_are_written_with_four_digits() -> None:
    assert [era_label(1), era_label(574), era_label(1233)] == ["0001", "0574", "1233"]
