"""Weeks, eras and embargoes: the calendar of walk-forward runs."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from numerai_pipeline.core.eras import (
    default_embargo,
    era_of_round,
    refit_era,
    target_days,
    week_of_era,
    weeks_until_target_known,
)
from practice.rounds import SeasonRound


@pytest.mark.parametrize(
    ("opening", "era"),
    [
        (datetime(2003, 1, 3, 12, tzinfo=UTC), 1),
        (datetime(2014, 1, 3, 12, tzinfo=UTC), 575),  # where Numerai's validation file begins
        (datetime(2026, 8, 11, 12, tzinfo=UTC), 1233),  # Tuesday
        (datetime(2026, 8, 15, 13, 12, tzinfo=UTC), 1233),  # Saturday of the same week
        (datetime(2026, 8, 17, 12, tzinfo=UTC), 1233),  # Monday
        (datetime(2026, 8, 18, 12, tzinfo=UTC), 1234),
        (datetime(2024, 2, 29, 12, tzinfo=UTC), 1105),
    ],
)
def test_era_of_round_is_shared_by_the_rounds_of_a_week(opening: datetime, era: int) -> None:
    assert era_of_round(opening) == era


def test_era_of_round_agrees_with_the_simulator() -> None:
    for number in range(1, 2000):
        assert era_of_round(SeasonRound(number).opens) == SeasonRound(number).era


def test_week_of_era_is_a_friday() -> None:
    assert week_of_era(1) == date(2003, 1, 3)
    assert week_of_era(575) == date(2014, 1, 3)
    assert all(week_of_era(era).weekday() == 4 for era in range(1, 1500))


def test_era_of_round_rejects_invalid_times() -> None:
    with pytest.raises(ValueError, match="before the first era"):
        era_of_round(datetime(2002, 12, 27, tzinfo=UTC))
    with pytest.raises(ValueError, match="time zone"):
        era_of_round(datetime(2020, 1, 1))  # noqa: DTZ001 - rejected
    with pytest.raises(ValueError, match="eras begin at 1"):
        week_of_era(0)
    # midnight in Tokyo is the day before in UTC
    tokyo = datetime.fromisoformat("2026-08-18T02:00:00+09:00")
    assert era_of_round(tokyo) == era_of_round(tokyo - timedelta(days=1)) == 1233


@pytest.mark.parametrize(
    ("target", "eras"),
    [("target_ender_20", 8), ("target_teager2b_60", 16), ("target", 16), ("target_bernie", 16), ("target_x_5", 2)],
)
def test_default_embargo_is_twice_the_horizon_and_at_most_16(target: str, eras: int) -> None:
    assert default_embargo(target) == eras


@pytest.mark.parametrize(
    ("target", "weeks"),
    [("target_ender_20", 6), ("target_ender_60", 14), ("target", 14), ("target_bernie", 14), ("", 14), (None, 14)],
)
def test_weeks_until_target_known_without_horizon_assumes_60_days(target: str | None, weeks: int) -> None:
    assert weeks_until_target_known(target) == weeks


def test_weeks_until_target_known_covers_the_days_to_resolution() -> None:
    # round 1343 and later resolve about 89 days after they open
    assert timedelta(weeks=weeks_until_target_known(None)) >= timedelta(days=89)


@pytest.mark.parametrize("days", [1, 5, 20, 40, 60, 90, 120])
def test_default_embargo_leaves_out_every_unknown_target(days: int) -> None:
    """The last era trained on lies one more era back than the embargo; its target is known when the round opens."""
    target = f"target_ender_{days}"
    assert default_embargo(target) + 1 >= weeks_until_target_known(target)


@pytest.mark.parametrize(
    ("era", "refit_every", "first"),
    [(100, 1, 100), (100, 4, 100), (103, 4, 100), (104, 4, 104), (103, 104, 0), (1233, 52, 1196)],
)
def test_refit_era_is_the_first_week_of_the_group(era: int, refit_every: int, first: int) -> None:
    assert refit_era(era, refit_every) == first


@pytest.mark.parametrize(("target", "days"), [("target_ender_20", 20), ("target_x_60", 60), ("target", 60), (None, 60)])
def test_target_days_are_in_the_name_or_the_widest(target: str | None, days: int) -> None:
    assert target_days(target) == days
