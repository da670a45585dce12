"""Which weeks a backtest is of: the knobs WEEKS, FROM, TO and AT_ONCE."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from numerai_pipeline.rounds import weeks_until_target_known

if TYPE_CHECKING:
    from collections.abc import Mapping

WEEKS, MOST_WEEKS = 8, 1500
AT_ONCE, MOST_AT_ONCE = 2, 16


@dataclass(frozen=True)
class Weeks:
    """The weeks of a backtest.

    Attributes
    ----------
    first, last
        The days between which the rounds opened, both included.
    at_once
        Runs that may go on at the same time.
    """

    first: date
    last: date
    at_once: int = AT_ONCE


def read_weeks(
    knobs: Mapping[str, str], target: str | None, today: date | None = None
) -> tuple[Weeks | None, list[str]]:
    """Choose the weeks: those asked for, else the last ones whose targets are known by now.

    Parameters
    ----------
    knobs
        WEEKS, FROM, TO, AT_ONCE, those that were given.
    target
        The target, whose horizon decides when scores are known; None where each round's payout chooses it, which may be
        the one with the widest horizon.
    today
        The day, in UTC; today's by default.

    Returns
    -------
    tuple
        The weeks, None when something is wrong, and what is wrong with each knob.
    """
    today = today or datetime.now(UTC).date()
    count, count_findings = _number(knobs, "WEEKS", MOST_WEEKS)
    at_once, at_once_findings = _number(knobs, "AT_ONCE", MOST_AT_ONCE)
    first, first_findings = _day(knobs, "FROM")
    last, last_findings = _day(knobs, "TO")
    findings = [*count_findings, *at_once_findings, *first_findings, *last_findings]
    if findings:
        return None, findings
    if count and first and last:
        return None, ["WEEKS, FROM and TO are given: any two of them say it all"]
    length = timedelta(days=7 * (count or WEEKS) - 1)
    if first and count:
        last = first + length
    last = last or today - timedelta(weeks=weeks_until_target_known(target))
    first = first or last - length
    if first > last:
        return None, [f"FROM={first} is after {last}, the last week"]
    if first > today:
        return None, [f"FROM={first}: lies in the future"]
    return Weeks(first, last, at_once or AT_ONCE), []


def _number(knobs: Mapping[str, str], name: str, most: int) -> tuple[int | None, list[str]]:
    text = knobs.get(name, "").strip()
    if not text:
        return None, []
    if text.isdecimal() and 1 <= int(text) <= most:
        return int(text), []
    return None, [f"{name}={text}: not a whole number from 1 to {most:,}"]


def _day(knobs: Mapping[str, str], name: str) -> tuple[date | None, list[str]]:
    text = knobs.get(name, "").strip()
    try:
        return (date.fromisoformat(text) if text else None), []
    except ValueError:
        return None, [f"{name}={text}: not a day; write it as in 2026-06-27"]
