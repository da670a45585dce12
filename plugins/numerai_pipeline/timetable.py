"""When runs start by themselves: on the days of the rounds that were chosen, when their windows may first open.

Airflow asks a timetable for one run after the other. What holds for ours:

- A run starts at 12:00 UTC of its round's day and its data interval is the week that ends then. Its logical date is the
  interval's start, as Airflow has it for all schedules, so the round belongs to the *end* of the interval.
- ``airflow backfill create --from-date A --to-date B`` asks with A and B as the restriction, and both are compared with
  the moment a round may open: the runs are those of exactly the rounds that open from A to B, both included. (Airflow's
  own documentation speaks of logical dates there; it leaves the comparison to the timetable.) A date without a time is
  its midnight: to include the round of the last day, name the day after it. Runs that lie in the future are left out.
- A DAG's ``start_date`` and ``end_date`` are compared in the same way. But Airflow gives a *scheduled* run only those
  tasks whose ``start_date`` is not after its logical date: with ``catchup``, let the DAG start a week before its first
  round. A backfilled run always has all tasks.
- A timetable that is ``on_demand`` starts nothing by itself and can be backfilled all the same. Airflow asks one
  question for both; they differ in ``catchup``, which backfills always have and the DAG does not.
- Without ``catchup`` only the latest round's day is made up for; whether its round is still open is for the first task
  to find out.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

from numerai_pipeline.round_days import DEFAULT_DAYS, FIRST_OPENING, ROUND_DAYS, format_days, parse_days

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

_WEEK = timedelta(days=7)
_TUESDAY = 1  # as datetime.weekday() counts


def _now() -> datetime:
    return pendulum.now("UTC")


class NumeraiRounds(Timetable):
    """A run for every round that opens on the chosen days.

    Parameters
    ----------
    days : str
        Any of ``tue``, ``wed``, ``thu``, ``fri``, ``sat``, by comma.
    on_demand : bool
        Whether runs start only when a backfill asks for them.
    clock : callable, optional
        Tells the present moment; the real one unless a test knows better.

    Raises
    ------
    ValueError
        When a day is none of these.
    """

    def __init__(
        self, days: str = DEFAULT_DAYS, *, on_demand: bool = False, clock: Callable[[], datetime] = _now
    ) -> None:
        self._days = parse_days(days)
        self._on_demand = on_demand
        self._clock = clock
        words = format_days(self._days)
        if on_demand:
            self._summary = f"{words} rounds, on demand"
            self.description = f"Starts nothing by itself; backfills are of the {words} rounds"
            return
        self._summary = f"{words} rounds, from {FIRST_OPENING:%H:%M} UTC"
        self.description = (
            f"A run for each {words} round: it starts at {FIRST_OPENING:%H:%M} UTC, when the round may first open"
        )

    @classmethod
    def of(cls, schedule: str) -> NumeraiRounds:
        """Give the timetable of the setting: days, or ``off`` for weekly rounds on demand only."""
        return cls(on_demand=True) if schedule == "off" else cls(schedule)

    @property
    def summary(self) -> str:
        """The schedule in a few words, as the web UI shows it in its lists."""
        return self._summary

    def serialize(self) -> dict[str, Any]:
        """Give what it takes to build it again."""
        return {"days": ",".join(self._days), "on_demand": self._on_demand}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> NumeraiRounds:
        """Build it again from :meth:`serialize`'s answer."""
        return cls(data["days"], on_demand=data["on_demand"])

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Give a run by hand the moment it was given, and no week: it is not the run of a round's day."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Give the run after the last one, as far as the restriction lets there be one."""
        if self._on_demand and not restriction.catchup:
            return None
        now = pendulum.instance(self._clock())
        if last_automated_data_interval is not None:
            candidates = [self._opening_from(last_automated_data_interval.end + timedelta(microseconds=1))]
        elif restriction.earliest is None:
            candidates = [self._opening_from(now)]
        else:
            candidates = []
        if restriction.earliest is not None:
            candidates.append(self._opening_from(restriction.earliest))
        if not restriction.catchup:
            candidates.append(self._opening_until(now))
        opening = max(candidates)
        if restriction.latest is not None and opening > restriction.latest:
            return None
        return DagRunInfo.interval(opening - _WEEK, opening)

    def _opening_from(self, moment: datetime) -> DateTime:
        """Give the first moment, at or after this one, at which a chosen round may open."""
        return next(found for found in self._openings(moment, 1) if found >= moment)

    def _opening_until(self, moment: datetime) -> DateTime:
        """Give the last moment, at or before this one, at which a chosen round may have opened."""
        return next(found for found in self._openings(moment, -1) if found <= moment)

    def _openings(self, moment: datetime, step: int) -> list[DateTime]:
        """Give the openings of the eight days that begin, forwards or backwards, with a moment's own."""
        today = pendulum.instance(moment).in_timezone("UTC")
        days = (today.add(days=step * number) for number in range(8))
        weekdays = {_TUESDAY + list(ROUND_DAYS).index(day) for day in self._days}
        return [
            pendulum.datetime(day.year, day.month, day.day, FIRST_OPENING.hour, FIRST_OPENING.minute, tz="UTC")
            for day in days
            if day.weekday() in weekdays
        ]
