"""The days of a week on which rounds open, and how settings name them."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

ROUND_DAYS = {"tue": "Tuesday", "wed": "Wednesday", "thu": "Thursday", "fri": "Friday", "sat": "Saturday"}
"""A day's name in settings → its English name, in the order of the week."""
DEFAULT_DAYS = "sat"
"""The schedule's default: one round a week, which stays open longest."""
ALL_DAYS = "all"
"""The word for all five days."""
OFF = "off"
"""The schedule without scheduled runs."""
FIRST_OPENING = time(12, 0, tzinfo=UTC)
"""A round opens no earlier than this, and most days a little later."""

ROUNDS_A_WEEK = len(ROUND_DAYS)


def is_saturday(opening: datetime) -> bool:
    """Whether a round that opens at this moment is a Saturday's, whose window is the long one."""
    return opening.astimezone(UTC).weekday() == list(ROUND_DAYS).index("sat") + 1


def parse_days(text: str) -> tuple[str, ...]:
    """Read a comma list of days, or ``all`` of them.

    Parameters
    ----------
    text : str
        Such as ``sat``, ``tue, Thu,sat`` in any order, or ``all``.

    Returns
    -------
    tuple of str
        The days, as :data:`ROUND_DAYS` names them, in the order of the week, each once.

    Raises
    ------
    ValueError
        Naming the entries that are not days on which rounds open.
    """
    named = [part.strip().lower() for part in text.split(",")]
    if named == [ALL_DAYS]:
        return tuple(ROUND_DAYS)
    wrong = [name for name in named if name not in ROUND_DAYS]
    if wrong:
        unknown = ", ".join(repr(name) for name in wrong)
        days = ", ".join(ROUND_DAYS)
        msg = f"{unknown} is not a day on which rounds open; choose from {days}, by comma, or '{ALL_DAYS}'"
        raise ValueError(msg)
    return tuple(day for day in ROUND_DAYS if day in named)


def parse_schedule(text: str) -> str:
    """Read the schedule of a DAG: days as :func:`parse_days` reads them, or ``off``.

    Returns
    -------
    str
        The days in the order of the week, comma-separated, or ``off``.

    Raises
    ------
    ValueError
        As for :func:`parse_days`.
    """
    if text.strip().lower() == OFF:
        return OFF
    try:
        return ",".join(parse_days(text))
    except ValueError as error:
        msg = f"{error}, or '{OFF}'"
        raise ValueError(msg) from None


def format_days(days: tuple[str, ...]) -> str:
    """Write days, which are in the order of the week, as text: ``Tuesday, Thursday and Saturday``."""
    if len(days) == len(ROUND_DAYS):
        return "Tuesday to Saturday"
    names = [ROUND_DAYS[day] for day in days]
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def latest_opening(day_opens: datetime) -> datetime:
    """Give the end of the period in which a round that opens late is still the round of its day.

    Parameters
    ----------
    day_opens : datetime
        When the day's round may first open.

    Returns
    -------
    datetime
        A day later, when the next round may open; after a Saturday two days, for its window is the long one.
    """
    return day_opens + timedelta(days=2 if is_saturday(day_opens) else 1)


def earliest_close(day_opens: datetime) -> datetime:
    """Give the moment before which the round of a day does not close.

    Parameters
    ----------
    day_opens : datetime
        When the day's round may first open.

    Returns
    -------
    datetime
        An hour later; Sunday at 14:00 UTC for a Saturday's round.
    """
    return day_opens + timedelta(hours=26 if is_saturday(day_opens) else 1)


def next_opening(moment: datetime) -> datetime:
    """Give the first moment after this one at which a round may open: noon UTC, from Tuesday to Saturday."""
    opening = datetime.combine(moment.astimezone(UTC).date(), FIRST_OPENING)
    while opening <= moment or opening.weekday() not in range(1, 1 + len(ROUND_DAYS)):
        opening += timedelta(days=1)
    return opening
