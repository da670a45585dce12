"""``make backtest``: a range of weeks, each run as it would have been then, and what every model would have scored.

It starts what ``make run`` starts, asks Airflow for a backfill of the weeks (what ``airflow backfill create`` does),
follows it, and sums up the leaderboards that the runs leave.
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

from launcher import airflow_home
from launcher.airflow_api import AirflowApi, begin_of, end_of, now
from launcher.console import seconds
from launcher.errors import EXIT_FAILED, LauncherError
from launcher.follow import FINAL, moment, what_went_wrong
from launcher.run import STOPPING_PATIENCE, airflow_is_alive, as_knob, end_run, unpaused, with_airflow
from numerai_pipeline.manifests import atomic_path
from numerai_pipeline.run_layout import RunLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import ExitStack
    from pathlib import Path

    from launcher.console import Screen
    from launcher.knobs import Knobs
    from launcher.session import Session
    from launcher.weeks import Weeks

POLL_SECONDS = 2.0
FIRST_TASK = "unzip"
# what fits beside the week on a usual terminal
MOST_COLUMNS = 6


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
    def over(self) -> bool:
        """Whether nothing more will become of it."""
        return self.state in FINAL

    @property
    def took(self) -> float:
        """Seconds from its start to its end, or to now."""
        return ((self.ended or now()) - self.started).total_seconds() if self.started else 0.0


def backtest(session: Session, knobs: Knobs) -> int:
    """Set everything up, run the weeks, show what every model would have scored, and take everything down again."""
    return with_airflow(session, knobs, _backtest)


def _backtest(session: Session, knobs: Knobs, api: AirflowApi, cleanup: ExitStack, started: float) -> int:
    if knobs.weeks is None:
        msg = "no weeks were chosen"
        raise LauncherError(msg)
    dag_id, weeks = airflow_home.DAG_ID, knobs.weeks
    _make_way(session, api, dag_id)
    unpaused(api, dag_id, cleanup)
    conf = {name: value for name, value in knobs.conf.items() if value is not None}
    over = False

    def end() -> None:
        if not over:
            with contextlib.suppress(LauncherError):
                end_backfill(session, api, dag_id, backfill, weeks)

    backfill = api.create_backfill(dag_id, weeks.first, weeks.last, {**conf, "submit": False}, at_once=weeks.at_once)
    cleanup.callback(end)
    choices = ", ".join(f"{name.upper()}={as_knob(value)}" for name, value in conf.items())
    session.screen.tick("Backtest", f"weeks {weeks.first} to {weeks.last}, {weeks.at_once} at once: {choices}")

    follower = BackfillFollower(
        api, session.screen, dag_id, weeks, session.checkout.data, partial(airflow_is_alive, session)
    )
    follower.follow(lambda: airflow_home.ended_early(session.checkout))
    over = True
    return show(session.screen, follower.weeks, session.checkout.data, time.monotonic() - started)


def _make_way(session: Session, api: AirflowApi, dag_id: str) -> None:
    """End a backfill that a killed command left, as Airflow does one of a DAG at a time; never one of the user's.

    Raises
    ------
    LauncherError
        When the Airflow of `make up` is at one: whose it is, nobody can tell.
    """
    for left in api.unfinished_backfills(dag_id):
        if session.kept_up() is not None:
            msg = f"backfill {left} of {dag_id} is not over, and Airflow does one at a time"
            raise LauncherError(msg, "Wait for its end, or cancel it on the DAG's page (Backfills)")
        session.screen.note("Backtest", f"ending backfill {left}, which was left unfinished")
        api.cancel_backfill(left)


def end_backfill(session: Session, api: AirflowApi, dag_id: str, backfill: int, weeks: Weeks) -> list[str]:
    """End a backfill of some weeks and those of its runs that are not over; other runs go on.

    Returns
    -------
    list of str
        The ids of the runs it ended.
    """
    api.cancel_backfill(backfill, patience=STOPPING_PATIENCE)
    ended = [run["dag_run_id"] for run in _runs_of(api, dag_id, weeks) if run["state"] not in FINAL]
    for run_id in ended:
        end_run(session, api, dag_id, run_id, "backtest")
    return ended


def _runs_of(api: AirflowApi, dag_id: str, weeks: Weeks) -> list[dict[str, Any]]:
    days = {"run_after_gte": begin_of(weeks.first).isoformat(), "run_after_lte": end_of(weeks.last).isoformat()}
    return api.runs(dag_id, run_type="backfill", **days)


@dataclass
class BackfillFollower:
    """Follows the runs of a backfill until all are over."""

    api: AirflowApi
    screen: Screen
    dag_id: str
    chosen: Weeks
    data: Path
    is_alive: Callable[[], bool]
    weeks: list[Week] = field(default_factory=list)

    def follow(self, gone: Callable[[], Exception]) -> None:
        """Show the weeks until the last is over.

        Parameters
        ----------
        gone
            Makes the error to raise when Airflow ends in between.
        """
        began = time.monotonic()
        if not self.screen.live:
            while not self._look(gone):
                time.sleep(POLL_SECONDS)
            return
        with Live(console=self.screen.console, auto_refresh=False, transient=True) as live:
            while not self._look(gone):
                live.update(_progress(self.weeks, time.monotonic() - began), refresh=True)
                time.sleep(POLL_SECONDS)

    def _look(self, gone: Callable[[], Exception]) -> bool:
        if not self.is_alive():
            raise gone()
        known = {week.run_id: week for week in self.weeks}
        for run in _runs_of(self.api, self.dag_id, self.chosen):
            week = known.get(run["dag_run_id"])
            if week is None:
                day = datetime.fromisoformat(run["data_interval_end"] or run["run_after"]).astimezone(UTC).date()
                week = Week(run["dag_run_id"], day)
                self.weeks.append(week)
            if week.over:
                continue
            week.state = str(run["state"])
            week.started, week.ended = (moment(run.get(name)) for name in ("start_date", "end_date"))
            if week.over:
                self._read(week)
                self.screen.say(_line(week))
        self.weeks.sort(key=lambda week: week.day)
        return bool(self.weeks) and all(week.over for week in self.weeks)

    def _read(self, week: Week) -> None:
        """Learn what a run that is over came to."""
        facts = self.api.return_value(self.dag_id, week.run_id, FIRST_TASK)
        if isinstance(facts, dict):
            week.round = str(facts.get("round", ""))
            week.scores = read_scores(RunLayout(self.data / facts["directory"]))
        if week.state == "failed":
            failed = [task for task in self.api.task_instances(self.dag_id, week.run_id) if task["state"] == "failed"]
            problems = []
            for task in failed:
                events = self.api.log_events(self.dag_id, week.run_id, task["task_id"], task["try_number"] or 1)
                problems.append(f"{task['task_id']}: {what_went_wrong(events)}")
            week.problem = "; ".join(problems) or "no task says why"


def read_scores(layout: RunLayout) -> dict[str, float | None]:
    """Read each model's mean CORR from a run's leaderboard; None where its targets are not known yet."""
    try:
        rows = json.loads(layout.leaderboard.read_text(encoding="utf-8"))["models"]
        return {str(row["model"]): row["corr"] for row in rows if row["kind"] != "reference"}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _line(week: Week) -> str:
    state = "done" if week.state == "success" else "FAILED"
    scores = ", ".join(f"{name} {_signed(score)}" for name, score in list(week.scores.items())[:MOST_COLUMNS])
    said = week.problem or (f"CORR {scores}" if scores else "")
    where = f", round {week.round}" if week.round else ""
    return f"  week of {week.day}{where}: {state} after {seconds(week.took)}{': ' if said else ''}{said}"


def _progress(weeks: Sequence[Week], spent: float) -> Group:
    done = sum(week.over for week in weeks)
    failed = sum(week.state == "failed" for week in weeks)
    running = [f"{week.day} ({seconds(week.took)})" for week in weeks if week.state == "running"]
    left = f", about {seconds(spent / done * (len(weeks) - done))} left" if done else ""
    words = f"{done} of {len(weeks)} weeks{f', {failed} failed' if failed else ''}, {seconds(spent)} so far{left}"
    return Group(ProgressBar(total=max(len(weeks), 1), completed=done, width=60), Text(words), Text(", ".join(running)))


def show(screen: Screen, weeks: Sequence[Week], data: Path, duration: float) -> int:
    """Show every week's scores and what each model came to; write them all to a CSV file. Returns the exit code."""
    models = list(dict.fromkeys(name for week in weeks for name in week.scores))
    failed = [week for week in weeks if week.state != "success"]
    screen.say()
    if models:
        if len(models) <= MOST_COLUMNS:
            screen.console.print(weeks_table(weeks, models))
            screen.say()
        screen.console.print(summary_table(weeks, models))
        unknown = [week for week in weeks if week.scores and all(score is None for score in week.scores.values())]
        if unknown:
            screen.say(f"{len(unknown)} weeks have no score: their targets are not known yet.", style="dim")
        screen.say()
        screen.say(f"Every score: {write_csv(weeks, models, data)}")
    for week in failed:
        screen.fail("Week failed", f"{week.day}: {week.problem}")
    screen.say()
    took = f"{len(weeks)} weeks in {seconds(duration)}"
    if failed:
        screen.fail("Backtest", f"{len(failed)} of {took} failed; what was done is kept for the next one")
        return EXIT_FAILED
    screen.tick("Backtest done", took)
    return 0


def weeks_table(weeks: Sequence[Week], models: Sequence[str]) -> Table:
    """Draw the table of all weeks."""
    table = Table(box=None, pad_edge=False, title="CORR by week", title_justify="left", title_style="bold")
    table.add_column("week", no_wrap=True)
    table.add_column("round", justify="right", no_wrap=True)
    for name in models:
        table.add_column(name, justify="right", no_wrap=True)
    for week in weeks:
        table.add_row(str(week.day), week.round, *(_signed(week.scores.get(name)) for name in models))
    return table


def summary_table(weeks: Sequence[Week], models: Sequence[str]) -> Table:
    """Draw the table of what each model came to, the best first."""
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
        writer.writerow([week.day, week.round, week.state, round(week.took, 1), *row])
    with atomic_path(path) as temporary:
        temporary.write_text(text.getvalue(), encoding="utf-8")
    return path


def _signed(score: float | None) -> str:
    return "" if score is None else f"{score:+.4f}"


def _plain(number: float | None, digits: int) -> str:
    return "" if number is None else f"{number:.{digits}f}"
