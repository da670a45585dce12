"""The range of weeks of a backtest."""

from __future__ import annotations

from datetime import date

import pytest

from launcher import options as options_module
from launcher.errors import UsageError
from launcher.options import BacktestOptions, BacktestRange, parse_options

TODAY = date(2026, 8, 15)


@pytest.fixture(autouse=True)
def _today(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options_module, "_today", lambda: TODAY)


def parse_backtest(given: dict[str, str]) -> BacktestOptions:
    options = parse_options("backtest", given, ["svm"])
    assert isinstance(options, BacktestOptions)
    return options


@pytest.mark.parametrize(
    ("options", "target", "weeks"),
    [
        # the last eight Saturdays whose 60-day targets are known: fourteen weeks ago and before
        ({}, None, BacktestRange(date(2026, 3, 15), date(2026, 5, 9), 2)),
        # whose 20-day targets are known: six weeks ago and before
        ({}, "target_ender_20", BacktestRange(date(2026, 5, 10), date(2026, 7, 4), 2)),
        ({}, "target", BacktestRange(date(2026, 3, 15), date(2026, 5, 9), 2)),
        ({}, "target_ender_60", BacktestRange(date(2026, 3, 15), date(2026, 5, 9), 2)),
        ({"WEEKS": "52", "AT_ONCE": "1"}, None, BacktestRange(date(2025, 5, 11), date(2026, 5, 9), 1)),
        ({"FROM": "2026-01-03", "TO": "2026-01-31"}, None, BacktestRange(date(2026, 1, 3), date(2026, 1, 31), 2)),
        ({"FROM": "2026-01-03", "WEEKS": "2"}, None, BacktestRange(date(2026, 1, 3), date(2026, 1, 16), 2)),
        ({"TO": "2026-01-31", "WEEKS": "1"}, None, BacktestRange(date(2026, 1, 25), date(2026, 1, 31), 2)),
        ({"FROM": "2026-04-20"}, None, BacktestRange(date(2026, 4, 20), date(2026, 5, 9), 2)),
    ],
)
def test_backtest_range_without_dates_ends_where_targets_are_known(
    options: dict[str, str], target: str | None, weeks: BacktestRange
) -> None:
    assert parse_backtest({**options, "TARGET": target or ""}).backtest_range == weeks


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"WEEKS": "0"}, "WEEKS=0: input should be greater than or equal to 1"),
        ({"WEEKS": "many"}, "WEEKS=many: input should be a valid integer"),
        ({"AT_ONCE": "17"}, "AT_ONCE=17: input should be less than or equal to 16"),
        ({"FROM": "1.6.2026"}, "FROM=1.6.2026: not a date; write it as in 2026-06-27"),
        ({"FROM": "2026-02-01", "TO": "2026-01-01"}, "FROM=2026-02-01 is after 2026-01-01"),
        ({"FROM": "2027-01-01", "TO": "2027-02-01"}, "FROM=2027-01-01: is in the future"),
        ({"FROM": "2026-01-01", "TO": "2026-02-01", "WEEKS": "3"}, "give at most two of them"),
    ],
)
def test_backtest_range_of_invalid_options_reports_each(options: dict[str, str], message: str) -> None:
    with pytest.raises(UsageError) as raised:
        parse_backtest(options)
    assert message in raised.value.message


def test_backtest_accepts_the_options_of_a_run_except_round() -> None:
    options = parse_backtest({"MODELS": "svm", "FROM": "2026-01-03", "TO": "2026-01-31", "AT_ONCE": "3"})
    assert options.backtest_range == BacktestRange(date(2026, 1, 3), date(2026, 1, 31), 3)
    assert (options.conf["models"], options.conf["source"]) == (["svm"], "practice")
    with pytest.raises(UsageError, match="make backtest has no option ROUND"):
        parse_backtest({"ROUND": "1300"})
    with pytest.raises(UsageError, match="WEEKS=x"):
        parse_backtest({"WEEKS": "x"})


def test_backtest_passes_refit_every_to_its_runs() -> None:
    options = parse_backtest({"WEEKS": "8", "REFIT_EVERY": "4"})
    assert options.conf["refit_every"] == 4
