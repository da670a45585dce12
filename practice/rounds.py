"""Rounds, days and eras: two calendars that follow from a round's number.

As on Numerai, five rounds open in a week, on Tuesday to Saturday, and eras are weeks: era 0001 is Friday 2003-01-03.
Round 1334 is the Saturday round of 2026-08-15, as on Numerai; all other numbers follow by counting. Saturday's numbers
are 4 modulo 5. The five rounds of a week share its era.

The calendars differ in when a round is open:

- ``always-open``, so that a first run works at any hour: a round opens at 12:00 UTC and closes when the next one opens
- ``strict``, as on Numerai: a round opens at 12:00 UTC or up to 70 minutes later. A weekday's round closes one hour
  after its opening, Saturday's on Sunday at 14:00 UTC. Between the windows no round is open

The current round is the last that opened, also after its close: numerapi compares the closing time of round 0 with its
clock (``check_round_open``). A submission between the windows is late for the current round and queued for the next.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Literal

from practice.payouts import scoring_period

CalendarName = Literal["always-open", "strict"]

FIRST_ERA = date(2003, 1, 3)
FIRST_ROUND = 1334
"""The first round of a season: its validation file has exactly the requested eras."""
SATURDAY = 4
MAX_DELAY_MINUTES = 70

_TUESDAY_AFTER_FIRST_ROUND = date(2026, 8, 18)
_OPENS = time(12, 0, tzinfo=UTC)
_SATURDAY_CLOSES = time(14, 0, tzinfo=UTC)
_WEEK = 7
_ROUNDS_A_WEEK = 5


@dataclass(frozen=True)
class SeasonRound:
    """A round of the calendar ``always-open``.

    Parameters
    ----------
    number : int
    """

    number: int

    @property
    def day(self) -> date:
        """Day on which it opens."""
        weeks, position = divmod(self.number - FIRST_ROUND - 1, _ROUNDS_A_WEEK)
        return _TUESDAY_AFTER_FIRST_ROUND + timedelta(days=_WEEK * weeks + position)

    @property
    def weekday(self) -> int:
        """Position in the week: 0 is Tuesday, 4 is Saturday."""
        return (self.number - FIRST_ROUND - 1) % _ROUNDS_A_WEEK

    @property
    def opens(self) -> datetime:
        """Moment at which it opens."""
        return datetime.combine(self.day, _OPENS)

    @property
    def closes(self) -> datetime:
        """Moment at which it closes: the next round opens."""
        return SeasonRound(self.number + 1).opens

    @property
    def resolves(self) -> datetime:
        """Moment at which its scores are final."""
        return self.opens + scoring_period(self)

    @property
    def era(self) -> int:
        """Number of the era of its live rows: the week whose Friday ends the data of the week's rounds."""
        friday = self.day + timedelta(days=3 - self.weekday)
        return (friday - FIRST_ERA).days // _WEEK + 1

    def status(self, now: datetime) -> str:
        """Status at a moment, in Numerai's terms."""
        if now < self.opens:
            return "UPCOMING"
        if now < self.closes:
            return "OPEN"
        return "RESOLVING" if now < self.resolves else "RESOLVED"


@dataclass(frozen=True)
class StrictRound(SeasonRound):
    """A round of the calendar ``strict``.

    Parameters
    ----------
    number : int
    seed : int
        Decides, with the number, how late the round opens.
    """

    seed: int = 0

    @property
    def opens(self) -> datetime:
        """Moment at which it opens: 0 to 70 minutes after 12:00 UTC."""
        minutes = random.Random(f"{self.seed}/{self.number}").randint(0, MAX_DELAY_MINUTES)  # noqa: S311 - no secret
        return super().opens + timedelta(minutes=minutes)

    @property
    def closes(self) -> datetime:
        """Moment at which it closes: an hour after its opening, or on Sunday at 14:00 UTC."""
        if self.weekday == SATURDAY:
            return datetime.combine(self.day + timedelta(days=1), _SATURDAY_CLOSES)
        return self.opens + timedelta(hours=1)


def round_open_at(moment: datetime) -> SeasonRound:
    """Return the round of the calendar ``always-open`` that is open at a moment with a time zone."""
    day = (moment.astimezone(UTC) - timedelta(hours=_OPENS.hour)).date()
    days = (day - _TUESDAY_AFTER_FIRST_ROUND).days
    weeks, position = divmod(days, _WEEK)
    return SeasonRound(FIRST_ROUND + 1 + _ROUNDS_A_WEEK * weeks + min(position, _ROUNDS_A_WEEK - 1))


def era_label(era: int) -> str:
    """Format an era as in the files: four digits, with leading zeros."""
    return f"{era:04d}"
