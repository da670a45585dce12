"""Weeks and eras: which era a round's live rows belong to, and how far training must stay away from it.

An era is a week of the market. Era 0001 is the one whose Friday is 2003-01-03; era N is N - 1 weeks later
(Numerai's dataset documentation).
"""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta

FIRST_ERA = date(2003, 1, 3)
"""The Friday of era 1."""
_FRIDAY = 4
_HORIZON = re.compile(r"_(\d{1,3})$")
_TRADING_DAYS_A_WEEK = 5
_WIDEST_HORIZON = 60
"""Trading days; a round that pays on such a target resolves about 89 days after it opens."""
_WEEKS_TO_PUBLICATION = 2
_WIDEST_EMBARGO = 16


def week_of_era(era: int) -> date:
    """Give the Friday of an era.

    Raises
    ------
    ValueError
        When the era is smaller than 1.
    """
    if era < 1:
        msg = f"era {era}: eras begin at 1"
        raise ValueError(msg)
    return FIRST_ERA + timedelta(weeks=era - 1)


def era_of_round(opening: datetime) -> int:
    """Give the era of a round's live rows: the five rounds of a week, from Tuesday to Saturday, share its Friday's.

    Parameters
    ----------
    opening : datetime
        When the round opens; must know its time zone. Sunday and Monday belong to the week before.

    Raises
    ------
    ValueError
        When it was before era 1.
    """
    if opening.tzinfo is None:
        msg = f"{opening.isoformat()} does not know its time zone"
        raise ValueError(msg)
    day = opening.astimezone(UTC).date()
    # weekday() is 0 on Monday; counted from Tuesday, the Friday is the fourth day
    friday = day - timedelta(days=(day.weekday() - 1) % 7 - (_FRIDAY - 1))
    if friday < FIRST_ERA:
        msg = f"{day} is before the first era, whose Friday is {FIRST_ERA}"
        raise ValueError(msg)
    return (friday - FIRST_ERA).days // 7 + 1


def refit_era(era: int, refit_every: int) -> int:
    """Give the first of the weeks that share a fit with an era: the largest multiple of ``refit_every``."""
    return era - era % refit_every


def target_days(target: str | None) -> int:
    """Give how many trading days a target looks ahead, from its name; 60, the widest, where the name has no number."""
    found = _HORIZON.search(target or "")
    return int(found[1]) if found else _WIDEST_HORIZON


def weeks_until_target_known(target: str | None) -> int:
    """Give how many weeks after its round a target is known: its horizon, and two weeks until it is published.

    Parameters
    ----------
    target : str or None
        Such as ``target_ender_20``; None where the round's own configuration chooses it, as in a run without a target.
        The widest horizon then serves: which target a round pays on has changed from 20 to 60 days.
    """
    return _horizon_weeks(target) + _WEEKS_TO_PUBLICATION


def default_embargo(target: str) -> int:
    """Give how many eras must lie between the last era trained on and the one predicted.

    The targets of neighbouring eras overlap, and the newest are not known yet: the gap is twice the target's horizon,
    8 eras for a 20-day target and 16 at most, as Numerai does for a 60-day one; never so few that the target of the
    last era trained on would be unknown when the predicted era's round opens.

    Parameters
    ----------
    target : str
        Such as ``target_ender_20``. The widest horizon is assumed where the name has none, such as ``target``.
    """
    return max(min(2 * _horizon_weeks(target), _WIDEST_EMBARGO), weeks_until_target_known(target) - 1)


def _horizon_weeks(target: str | None) -> int:
    """Give how many weeks a target looks ahead, by the number of trading days at the end of its name."""
    return -(-target_days(target) // _TRADING_DAYS_A_WEEK)
