"""Rounds, days and eras: a calendar one can compute.

As on Numerai, five rounds open in a week, on Tuesday to Saturday, and eras are weeks: era 0001 is Friday 2003-01-03.
Round 1334 is the Saturday round of 2026-08-15, as on Numerai; all other numbers follow by counting. Saturday's numbers
are 4 modulo 5. The five rounds of a week share its era.

Two things are kinder than on Numerai, so that a first run works at any hour: a round opens at 12:00 UTC sharp, and it
stays open until the next one does.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta

from practice.payouts import scoring_period

FIRST_ERA = date(2003, 1, 3)
FIRST_ROUND = 1334
"""The round with which the season begins: its validation file has exactly the eras that were asked for."""

_TUESDAY_AFTER_FIRST_ROUND = date(2026, 8, 18)
_OPENS = time(12, 0, tzinfo=UTC)
_WEEK = 7
_ROUNDS_A_WEEK = 5


@dataclass(frozen=True)
class SeasonRound:
    """A round of the season: everything about it follows from its number."""

    number: int

    @property
    def day(self) -> date:
        """Day on which it opens."""
        weeks, position = divmod(self.number - FIRST_ROUND - 1, _ROUNDS_A_WEEK)
        return _TUESDAY_AFTER_FIRST_ROUND + timedelta(days=_WEEK * weeks + position)

    @property
    def weekday(self) -> int:
        """Its place in the week: 0 is Tuesday, 4 is Saturday."""
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
        """Number of the era its live rows belong to: the week whose Friday ends the data of the week's rounds."""
        friday = self.day + timedelta(days=3 - self.weekday)
        return (friday - FIRST_ERA).days // _WEEK + 1

    def status(self, now: datetime) -> str:
        """Numerai's word for what the round is doing at ``now``."""
        if now < self.opens:
            return "UPCOMING"
        if now < self.closes:
            return "OPEN"
        return "RESOLVING" if now < self.resolves else "RESOLVED"


def round_open_at(moment: datetime) -> SeasonRound:
    """Give the round that is open at a moment, which must know its time zone; there always is one."""
    day = (moment.astimezone(UTC) - timedelta(hours=_OPENS.hour)).date()
    days = (day - _TUESDAY_AFTER_FIRST_ROUND).days
    weeks, position = divmod(days, _WEEK)
    return SeasonRound(FIRST_ROUND + 1 + _ROUNDS_A_WEEK * weeks + min(position, _ROUNDS_A_WEEK - 1))


def era_label(era: int) -> str:
    """Era as the files write it: four digits, with zeros in front."""
    return f"{era:04d}"
