"""The timetable of scheduled runs: the configured days, at the earliest opening of their rounds.

Airflow requests one run after the other from a timetable. Properties of this one:

- A run starts at 12:00 UTC of its round's day, and its data interval is the week that ends then. Its logical date is
  the start of the interval, as for all schedules of Airflow, so the round belongs to the *end* of the interval.
- ``airflow backfill create --from-date A --to-date B`` passes A and B as the restriction, and both are compared with
  the earliest opening of a round: the runs are the runs of all rounds that open from A to B, both included. (Airflow's
  documentation refers to logical dates; Airflow leaves the comparison to the timetable.) A date without a time is its
  midnight: to include the round of the last day, pass the day after it. Future runs are omitted.
- ``start_date`` and ``end_date`` of a DAG are compared in the same way. But a *scheduled* run has only the tasks whose
  ``start_date`` is not after its logical date: with ``catchup``, the DAG must start a week before its first round. A
  backfilled run has all tasks.
- A timetable that is ``on_demand`` creates no scheduled runs, but can be backfilled. Both are the same request of
  Airflow; they differ in ``catchup``, which is always set for a backfill and not set for the DAG.
- Without ``catchup`` only the latest missed day gets a run; its first task checks whether the round is still open. The
  first run of a deployment is for a round that cannot have closed before it: no deployment begins with a missed round.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import pendulum
from airflow.timetables.base import DagRunInfo, DataInterval, Timetable

from numerai_pipeline.core.round_calendar import (
    DEFAULT_DAYS,
    FIRST_OPENING,
    ROUND_DAYS,
    earliest_close,
    format_days,
    parse_days,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.timetables.base import TimeRestriction
    from pendulum import DateTime

_WEEK = timedelta(days=7)
_TUESDAY = 1  # as datetime.weekday() counts


def _now() -> datetime:
    return pendulum.now("UTC")


class NumeraiRounds(Timetable):
    """A run for every round that opens on the configured days.

    Parameters
    ----------
    days : str
        Any of ``tue``, ``wed``, ``thu``, ``fri``, ``sat``, comma-separated, or ``all``.
    on_demand : bool
        Whether runs are created by backfills only.
    clock : callable, optional
        Returns the current time; tests replace it.

    Raises
    ------
    ValueError
        When a day is not one of these.
    """

    def __init__(
        self, days: str = DEFAULT_DAYS, *, on_demand: bool = False, clock: Callable[[], datetime] | None = None
    ) -> None:
        self._days = parse_days(days)
        self._on_demand = on_demand
        self._clock = clock or _now
        words = format_days(self._days)
        if on_demand:
            self._summary = f"{words} rounds, on demand"
            self.description = f"No scheduled runs; backfills create the {words} rounds"
            return
        self._summary = f"{words} rounds, from {FIRST_OPENING:%H:%M} UTC"
        self.description = (
            f"A run for each {words} round, at {FIRST_OPENING:%H:%M} UTC, the earliest opening of the round"
        )

    @classmethod
    def of(cls, schedule: str) -> NumeraiRounds:
        """Create the timetable of the setting: days, or ``off`` for weekly rounds on demand only."""
        return cls(on_demand=True) if schedule == "off" else cls(schedule)

    @property
    def summary(self) -> str:
        """Short description of the schedule for the lists of the web UI."""
        return self._summary

    def serialize(self) -> dict[str, Any]:
        """Return the arguments as JSON, for :meth:`deserialize`."""
        return {"days": ",".join(self._days), "on_demand": self._on_demand}

    @classmethod
    def deserialize(cls, data: dict[str, Any]) -> NumeraiRounds:
        """Create a timetable from the result of :meth:`serialize`."""
        return cls(data["days"], on_demand=data["on_demand"])

    def infer_manual_data_interval(self, *, run_after: DateTime) -> DataInterval:
        """Return the time of the trigger without a length: a manual run does not belong to the day of a round."""
        return DataInterval.exact(run_after)

    def next_dagrun_info(
        self, *, last_automated_data_interval: DataInterval | None, restriction: TimeRestriction
    ) -> DagRunInfo | None:
        """Return the run after the last one; None if the restriction excludes it."""
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
            latest = self._opening_until(now)
            is_first = last_automated_data_interval is None
            candidates.append(self._opening_from(now) if is_first and now >= earliest_close(latest) else latest)
        opening = max(candidates)
        if restriction.latest is not None and opening > restriction.latest:
            return None
        return DagRunInfo.interval(opening - _WEEK, opening)

    def _opening_from(self, moment: datetime) -> DateTime:
        """Return the first opening of a configured day at or after a moment."""
        return next(found for found in self._openings(moment, 1) if found >= moment)

    def _opening_until(self, moment: datetime) -> DateTime:
        """Return the last opening of a configured day at or before a moment."""
        return next(found for found in self._openings(moment, -1) if found <= moment)

    def _openings(self, moment: datetime, step: int) -> list[DateTime]:
        """List the openings on the eight days from a moment's day on, forwards or backwards."""
        today = pendulum.instance(moment).in_timezone("UTC")
        days = (today.add(days=step * number) for number in range(8))
        weekdays = {_TUESDAY + list(ROUND_DAYS).index(day) for day in self._days}
        return [
            pendulum.datetime(day.year, day.month, day.day, FIRST_OPENING.hour, FIRST_OPENING.minute, tz="UTC")
            for day in days
            if day.weekday() in weekdays
        ]
