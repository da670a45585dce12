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
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.progress_bar import ProgressBar
from rich.text import Text

from launcher import local_airflow
from launcher.airflow_api import AirflowApi, end_of_day, now, start_of_day
from launcher.console import seconds, table
from launcher.errors import EXIT_FAILED, LauncherError
from launcher.run import STOP_TIMEOUT, airflow_session, end_run, format_conf, require_airflow
from launcher.run_monitor import FINAL, display, failure_message, parse_time
from launcher.up import background_airflow
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from rich.table import Table

    from launcher.console import Screen
    from launcher.context import CommandContext
    from launcher.options import BacktestOptions, BacktestRange

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
    def duration(self) -> float:
        """Seconds from its start to its end or, if it is running, to now."""
        return ((self.ended or now()) - self.started).total_seconds() if self.started else 0.0


def backtest(context: CommandContext, options: BacktestOptions) -> int:
    """Set everything up, run the weeks, print every model's scores, and stop everything again."""
    started, dag_id, weeks = time.monotonic(), local_airflow.DAG_ID, options.backtest_range
    with airflow_session(context, options, "backtest") as api, ExitStack() as unfinished:
        for backfill in api.unfinished_backfills(dag_id):
            # Airflow runs one per DAG at a time: the leftover of a killed command is cancelled, never one of the user
            if background_airflow(context) is not None:
                msg = f"backfill {backfill} of {dag_id} is not finished, and Airflow runs one at a time"
                raise LauncherError(msg, "Wait for its end, or cancel it on the DAG's page (Backfills)")
            context.screen.note("Backtest", f"cancelling the unfinished backfill {backfill}")
            api.cancel_backfill(backfill)
        conf = {**options.conf, "submit": False}
        backfill = api.create_backfill(dag_id, weeks.first, weeks.last, conf, at_once=weeks.at_once)
        unfinished.callback(end_backfill, context, api, dag_id, backfill, weeks)
        selected = f"weeks {weeks.first} to {weeks.last}, {weeks.at_once} at once: {format_conf(options)}"
        context.screen.success("Backtest", selected)
        found = _follow(context, api, dag_id, weeks)
        unfinished.pop_all()
        return show(context.screen, found, context.paths.data, time.monotonic() - started)


def end_backfill(
    context: CommandContext, api: AirflowApi, dag_id: str, backfill: int, weeks: BacktestRange
) -> list[str]:
    """Cancel a backfill of some weeks and end its unfinished runs; other runs continue.

    Returns the ids of the ended runs.
    """
    ended: list[str] = []
    with context.signals.signals_ignored(), contextlib.suppress(LauncherError):
        api.cancel_backfill(backfill, retry_seconds=STOP_TIMEOUT)
        ended = [run["dag_run_id"] for run in _runs_of(api, dag_id, weeks) if run["state"] not in FINAL]
        for run_id in ended:
            end_run(context, api, dag_id, run_id, "backtest")
    return ended


def _runs_of(api: AirflowApi, dag_id: str, weeks: BacktestRange) -> list[dict[str, Any]]:
    days = {"run_after_gte": start_of_day(weeks.first).isoformat(), "run_after_lte": end_of_day(weeks.last).isoformat()}
    return api.runs(dag_id, run_type="backfill", **days)


def _follow(context: CommandContext, api: AirflowApi, dag_id: str, selected: BacktestRange) -> list[Week]:
    """Display the progress of a backfill, with a line for each week that has ended; returns the weeks."""
    began, weeks = time.monotonic(), dict[str, Week]()

    def views() -> Iterator[Group]:
        while True:
            require_airflow(context)
            for run in _runs_of(api, dag_id, selected):
                day = datetime.fromisoformat(run["data_interval_end"] or run["run_after"]).astimezone(UTC).date()
                week = weeks.setdefault(run["dag_run_id"], Week(run["dag_run_id"], day))
                if week.state in FINAL:
                    continue
                week.state = str(run["state"])
                week.started, week.ended = (parse_time(run.get(name)) for name in ("start_date", "end_date"))
                if week.state in FINAL:
                    _read_outcome(context, api, dag_id, week)
                    context.screen.print(_line(week))
            if weeks and all(week.state in FINAL for week in weeks.values()):
                return
            yield _progress(sorted(weeks.values(), key=lambda week: week.day), time.monotonic() - began)
            time.sleep(POLL_SECONDS)

    display(context.screen, views(), transient=True)
    return sorted(weeks.values(), key=lambda week: week.day)


def _read_outcome(context: CommandContext, api: AirflowApi, dag_id: str, week: Week) -> None:
    """Read the scores or errors of an ended run."""
    summary = api.return_value(dag_id, week.run_id, FIRST_TASK)
    if isinstance(summary, dict):
        week.round = str(summary.get("round", ""))
        week.scores = read_scores(RunLayout(context.paths.data / summary["directory"]))
    if week.state == "failed":
        failed = [task for task in api.task_instances(dag_id, week.run_id) if task["state"] == "failed"]
        logs = {
            task["task_id"]: api.log_events(dag_id, week.run_id, task["task_id"], task["try_number"] or 1)
            for task in failed
        }
        problems = [f"{name}: {failure_message(events)}" for name, events in logs.items()]
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
    scores = ", ".join(f"{name} {_number(score)}" for name, score in list(week.scores.items())[:MAX_COLUMNS])
    message = week.problem or (f"CORR {scores}" if scores else "")
    where = f", round {week.round}" if week.round else ""
    return f"  week of {week.day}{where}: {state} after {seconds(week.duration)}{': ' if message else ''}{message}"


def _progress(weeks: Sequence[Week], spent: float) -> Group:
    done = sum(week.state in FINAL for week in weeks)
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
            by_week = table("CORR by week", "week", "round", *models)
            for week in weeks:
                by_week.add_row(str(week.day), week.round, *(_number(week.scores.get(name)) for name in models))
            screen.console.print(by_week)
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


def summary_table(weeks: Sequence[Week], models: Sequence[str]) -> Table:
    """Make the table of each model's scores over all weeks, the best first."""
    rows = []
    for name in models:
        scores = [score for week in weeks if (score := week.scores.get(name)) is not None]
        mean = statistics.fmean(scores) if scores else None
        spread = statistics.stdev(scores) if len(scores) > 1 else None
        sharpe = mean / spread if mean is not None and spread else None
        positive = f"{sum(score > 0 for score in scores) / len(scores):.0%}" if scores else ""
        cells = (name, str(len(scores)), _number(mean), _number(spread, ".4f"), _number(sharpe, ".2f"), positive)
        rows.append((-9.0 if mean is None else mean, cells))
    made = table("Over all weeks", "model", "weeks", "mean CORR", "std", "Sharpe", "positive")
    for _, cells in sorted(rows, key=lambda row: -row[0]):
        made.add_row(*map(Text, cells))
    return made


def write_csv(weeks: Sequence[Week], models: Sequence[str], data: Path) -> Path:
    """Write every week's scores to ``backtests/<first>_<last>.csv`` on the data volume; returns its path."""
    path = data / "backtests" / f"{weeks[0].day}_{weeks[-1].day}.csv"
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["week", "round", "state", "seconds", *models])
    for week in weeks:
        # the writer leaves a missing score blank
        scores = (week.scores.get(name) for name in models)
        writer.writerow([week.day, week.round, week.state, round(week.duration, 1), *scores])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def _number(score: float | None, form: str = "+.4f") -> str:
    return "" if score is None else f"{score:{form}}"
