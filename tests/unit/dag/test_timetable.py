"""The runs of the schedule, compared with a calendar that is counted day by day."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
import pytest
from airflow.timetables.base import DagRunInfo, DataInterval, TimeRestriction
from hypothesis import given, settings
from hypothesis import strategies as st

from numerai_pipeline.core.round_calendar import ROUND_DAYS
from numerai_pipeline.dag.timetable import NumeraiRounds

WEEK = timedelta(days=7)
WEEKDAYS = {"tue": 1, "wed": 2, "thu": 3, "fri": 4, "sat": 5}

moments = st.datetimes(datetime(2016, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
days = st.sets(st.sampled_from(list(ROUND_DAYS)), min_size=1).map(",".join)


def pend(moment: datetime) -> pendulum.DateTime:
    return pendulum.instance(moment)


def restriction(
    earliest: datetime | None = None, latest: datetime | None = None, *, catchup: bool = True
) -> TimeRestriction:
    return TimeRestriction(pend(earliest) if earliest else None, pend(latest) if latest else None, catchup)


def after(timetable: NumeraiRounds, last: DagRunInfo | None, limits: TimeRestriction) -> DagRunInfo | None:
    return timetable.next_dagrun_info_v2(last_dagrun_info=last, restriction=limits)


def all_runs(timetable: NumeraiRounds, limits: TimeRestriction) -> list[DagRunInfo]:
    """Request one run after the other, as Airflow's scheduler and its backfill do."""
    runs: list[DagRunInfo] = []
    while (info := after(timetable, runs[-1] if runs else None, limits)) is not None:
        runs.append(info)
    return runs


def openings(chosen: str, first: datetime, last: datetime) -> list[datetime]:
    """List every noon of a selected weekday from first to last, both included."""
    weekdays = {WEEKDAYS[day] for day in chosen.split(",")}
    noon = datetime(first.year, first.month, first.day, 12, tzinfo=UTC)
    noons = (noon + timedelta(days=number) for number in range((last - first).days + 2))
    return [each for each in noons if each.weekday() in weekdays and first <= each <= last]


def closes(opening: datetime) -> datetime:
    """Give the close of a round of Numerai's calendar, which no round precedes."""
    return opening + (timedelta(days=1, hours=2) if opening.weekday() == 5 else timedelta(hours=1))


@settings(deadline=None)
@given(chosen=days, first=moments, length=st.timedeltas(timedelta(0), timedelta(days=60)))
def test_next_dagrun_info_range_yields_rounds_that_open_in_it(chosen: str, first: datetime, length: timedelta) -> None:
    runs = all_runs(NumeraiRounds(chosen), restriction(first, first + length))
    assert [run.run_after for run in runs] == openings(chosen, first, first + length)


@settings(deadline=None)
@given(chosen=days, first=moments)
def test_next_dagrun_info_data_interval_is_the_week_before_the_start(chosen: str, first: datetime) -> None:
    run = after(NumeraiRounds(chosen), None, restriction(first))
    assert run is not None
    assert run.data_interval == DataInterval(run.run_after - WEEK, run.run_after)
    assert run.run_after.utcoffset() == timedelta(0)
    assert (run.run_after.hour, run.run_after.minute, run.run_after.second) == (12, 0, 0)


@settings(deadline=None)
@given(chosen=days, now=moments, started=moments, last=st.none() | moments)
def test_next_dagrun_info_without_catchup_starts_at_the_latest_day(
    chosen: str, now: datetime, started: datetime, last: datetime | None
) -> None:
    timetable = NumeraiRounds(chosen, clock=lambda: now)
    before = None
    if last is not None:
        [opening, *_] = openings(chosen, last, last + WEEK)
        before = DagRunInfo.interval(pend(opening - WEEK), pend(opening))
    run = after(timetable, before, restriction(started, catchup=False))
    assert run is not None
    assert before is None or run.run_after > before.run_after
    assert run.run_after >= started
    floor = max(started, before.run_after + timedelta(seconds=1)) if before else started
    missed = openings(chosen, max(floor, now - WEEK), now)
    if before is None and missed and now >= closes(missed[-1]):
        # the first run of a deployment
        missed, floor = [], now
    assert run.run_after == (missed[-1] if missed else openings(chosen, floor, floor + WEEK)[0])


@pytest.mark.parametrize(
    ("chosen", "now", "expected"),
    [
        # on Wednesday and on Saturday, before, during and after the round of the day
        ("sat", datetime(2026, 8, 19, 9, tzinfo=UTC), datetime(2026, 8, 22, 12, tzinfo=UTC)),
        ("tue,wed,thu,fri,sat", datetime(2026, 8, 19, 9, tzinfo=UTC), datetime(2026, 8, 19, 12, tzinfo=UTC)),
        ("tue,wed,thu,fri,sat", datetime(2026, 8, 19, 12, 59, tzinfo=UTC), datetime(2026, 8, 19, 12, tzinfo=UTC)),
        ("tue,wed,thu,fri,sat", datetime(2026, 8, 19, 13, tzinfo=UTC), datetime(2026, 8, 20, 12, tzinfo=UTC)),
        ("sat", datetime(2026, 8, 16, 13, 59, tzinfo=UTC), datetime(2026, 8, 15, 12, tzinfo=UTC)),
        ("sat", datetime(2026, 8, 16, 14, tzinfo=UTC), datetime(2026, 8, 22, 12, tzinfo=UTC)),
    ],
)
def test_first_run_of_a_deployment_is_for_a_round_that_is_not_over(
    chosen: str, now: datetime, expected: datetime
) -> None:
    run = after(
        NumeraiRounds(chosen, clock=lambda: now), None, restriction(datetime(2024, 1, 6, tzinfo=UTC), catchup=False)
    )
    assert run is not None
    assert run.run_after == expected


@settings(max_examples=20, deadline=None)
@given(chosen=days)
def test_serialize_round_trip_yields_the_same_runs(chosen: str) -> None:
    timetable = NumeraiRounds(chosen)
    again = NumeraiRounds.deserialize(json.loads(json.dumps(timetable.serialize())))
    limits = restriction(datetime(2026, 8, 1, tzinfo=UTC), datetime(2026, 9, 1, tzinfo=UTC))
    assert again.summary == timetable.summary
    assert again.serialize() == timetable.serialize()
    assert all_runs(again, limits) == all_runs(timetable, limits)


@pytest.mark.parametrize(
    ("chosen", "first", "expected"),
    [
        ("sat", datetime(2026, 12, 27, tzinfo=UTC), ["2027-01-02", "2027-01-09"]),
        ("thu", datetime(2025, 12, 26, tzinfo=UTC), ["2026-01-01", "2026-01-08"]),
        ("sat", datetime(2020, 2, 29, 12, tzinfo=UTC), ["2020-02-29", "2020-03-07"]),
        ("sat", datetime(2020, 2, 29, 12, 0, 0, 1, tzinfo=UTC), ["2020-03-07", "2020-03-14"]),
        ("tue,thu", datetime(2024, 2, 28, tzinfo=UTC), ["2024-02-29", "2024-03-05"]),
        # Europe's clocks change on the day between: noon UTC stays noon UTC
        ("sat,tue", pendulum.datetime(2026, 3, 28, tz="Europe/Berlin"), ["2026-03-28", "2026-03-31"]),
    ],
)
def test_next_dagrun_info_at_year_end_and_leap_day(chosen: str, first: datetime, expected: list[str]) -> None:
    timetable = NumeraiRounds(chosen)
    one = after(timetable, None, restriction(first))
    two = after(timetable, one, restriction(first))
    assert one is not None
    assert two is not None
    assert [f"{run.run_after:%Y-%m-%d}" for run in (one, two)] == expected


def test_next_dagrun_info_without_start_date_is_the_next_round() -> None:
    timetable = NumeraiRounds(clock=lambda: datetime(2026, 8, 12, tzinfo=UTC))
    for catchup in (True, False):
        run = after(timetable, None, restriction(catchup=catchup))
        assert run is not None
        assert run.run_after == datetime(2026, 8, 15, 12, tzinfo=UTC)


def test_infer_manual_data_interval_is_the_moment_of_the_trigger() -> None:
    moment = pendulum.datetime(2026, 8, 19, 9, 30, tz="UTC")
    assert NumeraiRounds().infer_manual_data_interval(run_after=moment) == DataInterval(moment, moment)


@pytest.mark.parametrize(
    ("chosen", "summary"),
    [
        ("sat", "Saturday rounds, from 12:00 UTC"),
        ("sat, Tue", "Tuesday and Saturday rounds, from 12:00 UTC"),
        ("fri,thu,wed", "Wednesday, Thursday and Friday rounds, from 12:00 UTC"),
        ("tue,wed,thu,fri,sat", "Tuesday to Saturday rounds, from 12:00 UTC"),
    ],
)
def test_summary_names_the_weekdays(chosen: str, summary: str) -> None:
    timetable = NumeraiRounds(chosen)
    assert timetable.summary == summary
    assert summary.split(" rounds", maxsplit=1)[0] in timetable.description


def test_next_dagrun_info_on_demand_yields_runs_for_backfills_only() -> None:
    first, last = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)
    timetable = NumeraiRounds(on_demand=True)
    kept = NumeraiRounds.deserialize(json.loads(json.dumps(timetable.serialize())))
    for each in (timetable, kept, NumeraiRounds.of("off")):
        assert after(each, None, restriction(first, catchup=False)) is None
        runs = all_runs(each, restriction(first, last))
        assert [run.run_after for run in runs] == openings("sat", first, last)
        assert each.summary == "Saturday rounds, on demand"
    assert NumeraiRounds.of("tue,fri").summary == NumeraiRounds("tue,fri").summary
    assert NumeraiRounds.of("all").serialize() == NumeraiRounds("tue,wed,thu,fri,sat").serialize()
    assert after(NumeraiRounds.of("tue,fri"), None, restriction(first, catchup=False)) is not None


@pytest.mark.parametrize("wrong", ["", "sun", "sat,", "tue;sat", "0 13 * * 6", "off"])
def test_init_day_without_rounds_raises_value_error(wrong: str) -> None:
    with pytest.raises(ValueError, match="is not a day on which rounds open; choose from tue, wed, thu, fri, sat"):
        NumeraiRounds(wrong)


def test_plugin_registers_the_timetable() -> None:
    from airflow import plugins_manager

    found: dict[str, Any] = plugins_manager.get_timetables_plugins()
    assert found["numerai_pipeline.dag.timetable.NumeraiRounds"] is NumeraiRounds
