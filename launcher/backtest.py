"""``make backtest``: runs a range of past weeks, each on the data of its time, and reports every model's scores.

It starts the same services as ``make run``, requests a backfill of the weeks from Airflow (as ``airflow backfill
create`` does), monitors it, and summarizes the leaderboards of its runs.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import statistics
import time
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from launcher import local_airflow
from launcher.airflow_api import AirflowApi, end_of_day, now, start_of_day
from launcher.console import seconds
from launcher.errors import EXIT_FAILED, LauncherError
from launcher.run import STOP_TIMEOUT, airflow_is_alive, end_run, format_option, temporarily_unpaused, with_airflow
from launcher.run_monitor import FINAL, failure_message, parse_time
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from launcher.backtest_range import BacktestRange
    from launcher.console import Screen
    from launcher.context import CommandContext
    from launcher.options import Options

POLL_SECONDS = 2.0
FIRST_TASK = "unzip"
# number of columns that fit beside the week on a usual terminal
MAX_COLUMNS = 6


@dataclass
class Week:
    """One run of a backfill."""

    run_id: str
    day: date
    state: str = "queued"
    started: datetime | None = None
    ended: datetime | None = None
    round: str = ""
    scores: dict[str, float | None] = field(default_factory=dict)
    problem: str = ""

    @property
    def is_final(self) -> bool:
        """Whether the run has its final state."""
        return self.state in FINAL

    @property
    def duration(self) -> float:
        """Seconds from its start to its end or, if it is running, to now."""
        return ((self.ended or now()) - self.started).total_seconds() if self.started else 0.0


def backtest(context: CommandContext, options: Options) -> int:
    """Set everything up, run the weeks, print every model's scores, and stop everything again."""
    return with_airflow(context, options, _backtest)


def _backtest(context: CommandContext, options: Options, api: AirflowApi, cleanup: ExitStack, started: float) -> int:
    if options.backtest_range is None:
        msg = "a backtest needs a range of weeks"
        raise LauncherError(msg)
    dag_id, weeks = local_airflow.DAG_ID, options.backtest_range
    _cancel_stale_backfill(context, api, dag_id)
    temporarily_unpaused(api, dag_id, cleanup)
    conf = {name: value for name, value in options.conf.items() if value is not None}
    over = False

    def end() -> None:
        if not over:
            with contextlib.suppress(LauncherError):
                end_backfill(context, api, dag_id, backfill, weeks)

    backfill = api.create_backfill(dag_id, weeks.first, weeks.last, {**conf, "submit": False}, at_once=weeks.at_once)
    cleanup.callback(end)
    selected = ", ".join(f"{name.upper()}={format_option(value)}" for name, value in conf.items())
    context.screen.success("Backtest", f"weeks {weeks.first} to {weeks.last}, {weeks.at_once} at once: {selected}")

    monitor = BackfillMonitor(
        api, context.screen, dag_id, weeks, context.paths.data, partial(airflow_is_alive, context)
    )
    monitor.follow(lambda: local_airflow.ended_early(context.paths))
    over = True
    return show(context.screen, monitor.weeks, context.paths.data, time.monotonic() - started)


def _cancel_stale_backfill(context: CommandContext, api: AirflowApi, dag_id: str) -> None:
    """Cancel a leftover backfill of a killed command, as Airflow runs one per DAG at a time; never one of the user.

    Raises
    ------
    LauncherError
        When the Airflow of `make up` runs a backfill, which may be the user's.
    """
    for backfill in api.unfinished_backfills(dag_id):
        if context.background_airflow() is not None:
            msg = f"backfill {backfill} of {dag_id} is not finished, and Airflow runs one at a time"
            raise LauncherError(msg, "Wait for its end, or cancel it on the DAG's page (Backfills)")
        context.screen.note("Backtest", f"cancelling the unfinished backfill {backfill}")
        api.cancel_backfill(backfill)


def end_backfill(
    context: CommandContext, api: AirflowApi, dag_id: str, backfill: int, weeks: BacktestRange
) -> list[str]:
    """Cancel a backfill of some weeks and end its unfinished runs; other runs continue.

    Returns
    -------
    list of str
        The ids of the ended runs.
    """
    api.cancel_backfill(backfill, retry_seconds=STOP_TIMEOUT)
    ended = [run["dag_run_id"] for run in _runs_of(api, dag_id, weeks) if run["state"] not in FINAL]
    for run_id in ended:
        end_run(context, api, dag_id, run_id, "backtest")
    return ended


def _runs_of(api: AirflowApi, dag_id: str, weeks: BacktestRange) -> list[dict[str, Any]]:
    days = {"run_after_gte": start_of_day(weeks.first).isoformat(), "run_after_lte": end_of_day(weeks.last).isoformat()}
    return api.runs(dag_id, run_type="backfill", **days)


@dataclass
class BackfillMonitor:
    """Monitors the runs of a backfill until all have ended."""

    api: AirflowApi
    screen: Screen
    dag_id: str
    selected: BacktestRange
    data: Path
    is_alive: Callable[[], bool]
    weeks: list[Week] = field(default_factory=list)

    def follow(self, gone: Callable[[], Exception]) -> None:
        """Display the weeks until the last has ended.

        Parameters
        ----------
        gone
            Makes the error to raise when Airflow ends in between.
        """
        began = time.monotonic()
        if not self.screen.live:
            while not self._poll(gone):
                time.sleep(POLL_SECONDS)
            return
        with Live(console=self.screen.console, auto_refresh=False, transient=True) as live:
            while not self._poll(gone):
                live.update(_progress(self.weeks, time.monotonic() - began), refresh=True)
                time.sleep(POLL_SECONDS)

    def _poll(self, gone: Callable[[], Exception]) -> bool:
        if not self.is_alive():
            raise gone()
        known = {week.run_id: week for week in self.weeks}
        for run in _runs_of(self.api, self.dag_id, self.selected):
            week = known.get(run["dag_run_id"])
            if week is None:
                day = datetime.fromisoformat(run["data_interval_end"] or run["run_after"]).astimezone(UTC).date()
                week = Week(run["dag_run_id"], day)
                self.weeks.append(week)
            if week.is_final:
                continue
            week.state = str(run["state"])
            week.started, week.ended = (parse_time(run.get(name)) for name in ("start_date", "end_date"))
            if week.is_final:
                self._read(week)
                self.screen.print(_line(week))
        self.weeks.sort(key=lambda week: week.day)
        return bool(self.weeks) and all(week.is_final for week in self.weeks)

    def _read(self, week: Week) -> None:
        """Read the scores or errors of an ended run."""
        summary = self.api.return_value(self.dag_id, week.run_id, FIRST_TASK)
        if isinstance(summary, dict):
            week.round = str(summary.get("round", ""))
            week.scores = read_scores(RunLayout(self.data / summary["directory"]))
        if week.state == "failed":
            failed = [task for task in self.api.task_instances(self.dag_id, week.run_id) if task["state"] == "failed"]
            problems = []
            for task in failed:
                events = self.api.log_events(self.dag_id, week.run_id, task["task_id"], task["try_number"] or 1)
                problems.append(f"{task['task_id']}: {failure_message(events)}")
            week.problem = "; ".join(problems) or "no task has failed"


def read_scores(layout: RunLayout) -> dict[str, float | None]:
    """Read each model's mean CORR from a run's leaderboard; None if its targets are not known yet."""
    try:
        rows = json.loads(layout.leaderboard.read_text(encoding="utf-8"))["models"]
        return {str(row["model"]): row["corr"] for row in rows if row["kind"] != "reference"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _line(week: Week) -> str:
    state = "done" if week.state == "success" else "FAILED"
    scores = ", ".join(f"{name} {_signed(score)}" for name, score in list(week.scores.items())[:MAX_COLUMNS])
    message = week.problem or (f"CORR {scores}" if scores else "")
    where = f", round {week.round}" if week.round else ""
    return f"  week of {week.day}{where}: {state} after {seconds(week.duration)}{': ' if message else ''}{message}"


def _progress(weeks: Sequence[Week], spent: float) -> Group:
    done = sum(week.is_final for week in weeks)
    failed = sum(week.state == "failed" for week in weeks)
    running = [f"{week.day} ({seconds(week.duration)})" for week in weeks if week.state == "running"]
    remaining = f", about {seconds(spent / done * (len(weeks) - done))} left" if done else ""
    text = f"{done} of {len(weeks)} weeks{f', {failed} failed' if failed else ''}, {seconds(spent)} so far{remaining}"
    return Group(ProgressBar(total=max(len(weeks), 1), completed=done, width=60), Text(text), Text(", ".join(running)))


def show(screen: Screen, weeks: Sequence[Week], data: Path, duration: float) -> int:
    """Print every week's scores and a summary of each model, and write a CSV file. Returns the exit code."""
    models = list(dict.fromkeys(name for week in weeks for name in week.scores))
    failed = [week for week in weeks if week.state != "success"]
    screen.print()
    if models:
        if len(models) <= MAX_COLUMNS:
            screen.console.print(weeks_table(weeks, models))
            screen.print()
        screen.console.print(summary_table(weeks, models))
        unknown = [week for week in weeks if week.scores and all(score is None for score in week.scores.values())]
        if unknown:
            screen.print(f"{len(unknown)} weeks have no score: their targets are not known yet.", style="dim")
        screen.print()
        screen.print(f"Every score: {write_csv(weeks, models, data)}")
    for week in failed:
        screen.error("Week failed", f"{week.day}: {week.problem}")
    screen.print()
    summary = f"{len(weeks)} weeks in {seconds(duration)}"
    if failed:
        screen.error("Backtest", f"{len(failed)} of {summary} failed; results are kept for the next backtest")
        return EXIT_FAILED
    screen.success("Backtest done", summary)
    return 0


def weeks_table(weeks: Sequence[Week], models: Sequence[str]) -> Table:
    """Make the table of all weeks."""
    table = Table(box=None, pad_edge=False, title="CORR by week", title_justify="left", title_style="bold")
    table.add_column("week", no_wrap=True)
    table.add_column("round", justify="right", no_wrap=True)
    for name in models:
        table.add_column(name, justify="right", no_wrap=True)
    for week in weeks:
        table.add_row(str(week.day), week.round, *(_signed(week.scores.get(name)) for name in models))
    return table


def summary_table(weeks: Sequence[Week], models: Sequence[str]) -> Table:
    """Make the table of each model's scores over all weeks, the best first."""
    table = Table(box=None, pad_edge=False, title="Over all weeks", title_justify="left", title_style="bold")
    table.add_column("model", no_wrap=True)
    for title in ("weeks", "mean CORR", "std", "Sharpe", "positive"):
        table.add_column(title, justify="right", no_wrap=True)
    rows = []
    for name in models:
        scores = [score for week in weeks if (score := week.scores.get(name)) is not None]
        mean = statistics.fmean(scores) if scores else None
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        rows.append((name, scores, mean, spread))
    for name, scores, mean, spread in sorted(rows, key=lambda row: -(row[2] if row[2] is not None else -9)):
        sharpe = mean / spread if mean is not None and spread else None
        positive = f"{sum(score > 0 for score in scores) / len(scores):.0%}" if scores else ""
        table.add_row(Text(name), str(len(scores)), _signed(mean), _plain(spread, 4), _plain(sharpe, 2), positive)
    return table


def write_csv(weeks: Sequence[Week], models: Sequence[str], data: Path) -> Path:
    """Write every week's scores to ``backtests/<first>_<last>.csv`` on the data volume; returns its path."""
    path = data / "backtests" / f"{weeks[0].day}_{weeks[-1].day}.csv"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["week", "round", "state", "seconds", *models])
    for week in weeks:
        scores: Mapping[str, Any] = week.scores
        row = ["" if scores.get(name) is None else scores[name] for name in models]
        writer.writerow([week.day, week.round, week.state, round(week.duration, 1), *row])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def _signed(score: float | None) -> str:
    return "" if score is None else f"{score:+.4f}"


def _plain(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"
