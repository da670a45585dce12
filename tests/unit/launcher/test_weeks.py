"""Which weeks a backtest is of."""

from __future__ import annotations

from datetime import date

import pytest

from launcher.errors import UsageError
from launcher.knobs import parse_knobs
from launcher.weeks import Weeks, read_weeks

TODAY = date(2026, 8, 15)


@pytest.mark.parametrize(
    ("knobs", "target", "weeks"),
    [
        # the last eight Saturdays whose 60-day targets are known: fourteen weeks ago and before
        ({}, None, Weeks(date(2026, 3, 15), date(2026, 5, 9), 2)),
        # whose 20-day targets are known: six weeks ago and before
        ({}, "target_ender_20", Weeks(date(2026, 5, 10), date(2026, 7, 4), 2)),
        ({}, "target", Weeks(date(2026, 3, 15), date(2026, 5, 9), 2)),
        ({}, "target_ender_60", Weeks(date(2026, 3, 15), date(2026, 5, 9), 2)),
        ({"WEEKS": "52", "AT_ONCE": "1"}, None, Weeks(date(2025, 5, 11), date(2026, 5, 9), 1)),
        ({"FROM": "2026-01-03", "TO": "2026-01-31"}, None, Weeks(date(2026, 1, 3), date(2026, 1, 31), 2)),
        ({"FROM": "2026-01-03", "WEEKS": "2"}, None, Weeks(date(2026, 1, 3), date(2026, 1, 16), 2)),
        ({"TO": "2026-01-31", "WEEKS": "1"}, None, Weeks(date(2026, 1, 25), date(2026, 1, 31), 2)),
        ({"FROM": "2026-04-20"}, None, Weeks(date(2026, 4, 20), date(2026, 5, 9), 2)),
    ],
)
def test_the_weeks_that_are_meant(knobs: dict[str, str], target: str | None, weeks: Weeks) -> None:
    chosen, findings = read_weeks(knobs, target, TODAY)
    assert findings == []
    assert chosen == weeks


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"WEEKS": "0"}, "WEEKS=0: not a whole number from 1 to 1,500"),
        ({"WEEKS": "many"}, "WEEKS=many: not a whole number"),
        ({"AT_ONCE": "17"}, "AT_ONCE=17: not a whole number from 1 to 16"),
        ({"FROM": "1.6.2026"}, "FROM=1.6.2026: not a day; write it as in 2026-06-27"),
        ({"FROM": "2026-02-01", "TO": "2026-01-01"}, "FROM=2026-02-01 is after 2026-01-01"),
        ({"FROM": "2027-01-01", "TO": "2027-02-01"}, "FROM=2027-01-01: lies in the future"),
        ({"FROM": "2026-01-01", "TO": "2026-02-01", "WEEKS": "3"}, "any two of them say it all"),
    ],
)
def test_weeks_that_cannot_be(knobs: dict[str, str], says: str) -> None:
    weeks, findings = read_weeks(knobs, None, TODAY)
    assert weeks is None
    assert says in "; ".join(findings)


def test_a_backtest_takes_the_knobs_of_a_run_but_no_round() -> None:
    knobs = parse_knobs(
        "backtest", {"MODELS": "svm", "FROM": "2026-01-03", "TO": "2026-01-31", "AT_ONCE": "3"}, ["svm"]
    )
    assert knobs.weeks == Weeks(date(2026, 1, 3), date(2026, 1, 31), 3)
    assert (knobs.conf["models"], knobs.conf["source"]) == (["svm"], "practice")
    with pytest.raises(UsageError, match="make backtest has no knob ROUND"):
        parse_knobs("backtest", {"ROUND": "1300"}, ["svm"])
    with pytest.raises(UsageError, match="WEEKS=x"):
        parse_knobs("backtest", {"WEEKS": "x"}, ["svm"])
    assert parse_knobs("run", {"MODELS": "svm"}, ["svm"]).weeks is None
