"""The range of weeks of a backtest: the options WEEKS, FROM, TO and AT_ONCE."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING

from numerai_pipeline.core.eras import weeks_until_target_known

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_WEEKS, MAX_WEEKS = 8, 1500
DEFAULT_AT_ONCE, MAX_AT_ONCE = 2, 16


@dataclass(frozen=True)
class BacktestRange:
    """The range of a backtest.

    Attributes
    ----------
    first, last
        The first and last day of the rounds' openings, both included.
    at_once
        Maximum number of parallel runs.
    """

    first: date
    last: date
    at_once: int = DEFAULT_AT_ONCE


def parse_range(
    options: Mapping[str, str], target: str | None, today: date | None = None
) -> tuple[BacktestRange | None, list[str]]:
    """Parse the range: the requested one, else the last weeks whose targets are known by now.

    Parameters
    ----------
    options
        The given ones of WEEKS, FROM, TO and AT_ONCE.
    target
        The target, whose horizon decides when scores are known; None where each round's payout chooses it, which may be
        the one with the widest horizon.
    today
        The day, in UTC; today's by default.

    Returns
    -------
    tuple
        The range, None if an option is invalid, and an error for each invalid option.
    """
    today = today or datetime.now(UTC).date()
    count, count_findings = _number(options, "WEEKS", MAX_WEEKS)
    at_once, at_once_findings = _number(options, "AT_ONCE", MAX_AT_ONCE)
    first, first_findings = _day(options, "FROM")
    last, last_findings = _day(options, "TO")
    findings = [*count_findings, *at_once_findings, *first_findings, *last_findings]
    if findings:
        return None, findings
    if count and first and last:
        return None, ["WEEKS, FROM and TO are given: give at most two of them"]
    length = timedelta(days=7 * (count or DEFAULT_WEEKS) - 1)
    if first and count:
        last = first + length
    last = last or today - timedelta(weeks=weeks_until_target_known(target))
    first = first or last - length
    if first > last:
        return None, [f"FROM={first} is after {last}, the last day"]
    if first > today:
        return None, [f"FROM={first}: is in the future"]
    return BacktestRange(first, last, at_once or DEFAULT_AT_ONCE), []


def _number(options: Mapping[str, str], name: str, maximum: int) -> tuple[int | None, list[str]]:
    text = options.get(name, "").strip()
    if not text:
        return None, []
    if text.isdecimal() and 1 <= int(text) <= maximum:
        return int(text), []
    return None, [f"{name}={text}: not a whole number from 1 to {maximum:,}"]


def _day(options: Mapping[str, str], name: str) -> tuple[date | None, list[str]]:
    text = options.get(name, "").strip()
    try:
        return (date.fromisoformat(text) if text else None), []
    except ValueError:
        return None, [f"{name}={text}: not a date; write it as in 2026-06-27"]
