"""Displays a running DAG run: a table redrawn in place on a terminal, or a plain line for each change."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import count
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.airflow_api import now
from launcher.console import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from rich.console import RenderableType

    from launcher.airflow_api import AirflowApi
    from launcher.console import Screen

POLL_SECONDS = 1.0
POLLS_PER_LOG = 3
# interval at which a plain log repeats the progress of a running task
PLAIN_PROGRESS_SECONDS = 20.0
FINAL = ("success", "failed")
# state of a task → its label and style
STATES = {
    **dict.fromkeys(("", "scheduled", "queued", "up_for_reschedule"), ("waiting", "dim")),
    **dict.fromkeys(("running", "deferred"), ("running", "cyan")),
    "success": ("done", "green"),
    "failed": ("failed", "bold red"),
    "upstream_failed": ("not run", "red"),
    "up_for_retry": ("will retry", "yellow"),
}


@dataclass(frozen=True)
class TaskView:
    """The displayed properties of a task."""

    name: str
    state: str = ""
    attempt: int = 0
    attempts: int = 1
    started: datetime | None = None
    ended: datetime | None = None
    last_message: str = ""

    @classmethod
    def from_api(cls, instance: dict[str, Any]) -> TaskView:
        """Read a task instance of the REST API."""
        return cls(
            name=instance["task_id"],
            state=instance.get("state") or "",
            attempt=instance.get("try_number") or 0,
            attempts=(instance.get("max_tries") or 0) + 1,
            started=parse_time(instance.get("start_date")),
            ended=parse_time(instance.get("end_date")),
        )

    @property
    def label(self) -> str:
        """The state in plain English."""
        return STATES.get(self.state, (self.state, ""))[0]

    @property
    def has_failed(self) -> bool:
        """Whether its last attempt failed."""
        return self.state in {"failed", "up_for_retry"}

    def elapsed(self, at: datetime) -> str:
        """Its duration so far, or in total."""
        if self.started is None or self.state in {"", "scheduled", "queued", "skipped", "upstream_failed"}:
            return ""
        return seconds(max(((self.ended or at) - self.started).total_seconds(), 0.0))


def task_log_lines(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Select the task's own lines of its log, without Airflow's."""
    lines, depth = [], 0
    for event in events:
        text = str(event.get("event", ""))
        if text.startswith("::group::"):
            depth += 1
        elif text.startswith("::endgroup::"):
            depth = max(depth - 1, 0)
        elif depth == 0 and text.strip() and event.get("logger") != "py.warnings":
            lines.append(event)
    return lines


def last_log_line(events: Iterable[dict[str, Any]]) -> str:
    """Give the last line of a task's log, without escape codes and line ends."""
    lines = task_log_lines(events)
    return _one_line(str(lines[-1]["event"])) if lines else ""


def failure_message(events: Sequence[dict[str, Any]]) -> str:
    """Give the error of a failed task in one line: its exception, else its last log line."""
    for event in reversed(events):
        if details := event.get("error_detail"):
            return _one_line(f"{details[-1].get('exc_value') or details[-1].get('exc_type')}")
    errors = [event for event in task_log_lines(events) if event.get("level") in {"error", "critical"}]
    return last_log_line(errors) or last_log_line(events) or "no message in its log"


def log_path(events: Iterable[dict[str, Any]]) -> str | None:
    """Find the path of a task's log file, which Airflow writes at the log's beginning."""
    texts = (str(event.get("event", "")) for event in events)
    return next((text for text in texts if text.endswith(".log") and "/attempt=" in text), None)


def render(tasks: Sequence[TaskView], at: datetime, title: str) -> Table:
    """Draw the table of a run's tasks."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, expand=True)
    table.add_column("task", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=10)
    table.add_column("attempt", no_wrap=True, justify="right", min_width=5)
    table.add_column("time", no_wrap=True, justify="right", min_width=10)
    table.add_column("last message", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
    for task in tasks:
        table.add_row(
            Text(task.name, style="dim" if task.state == "skipped" else ""),
            Text(task.label, style=STATES.get(task.state, ("", "dim"))[1]),
            f"{task.attempt}/{task.attempts}" if task.attempt else "",
            task.elapsed(at),
            Text("" if task.state == "success" else task.last_message),
        )
    return table


def display(screen: Screen, views: Iterator[RenderableType], *, transient: bool = False) -> None:
    """Draw each of some views in place of the one before; without a terminal, only take them."""
    if not screen.live:
        deque(views, maxlen=0)
        return
    with Live(console=screen.console, auto_refresh=False, transient=transient) as live:
        for view in views:
            live.update(view, refresh=True)


def follow_run(
    api: AirflowApi, screen: Screen, dag_id: str, run_id: str, check: Callable[[], None]
) -> tuple[str, list[TaskView]]:
    """Display a run until its end; returns its final state and its tasks. `check` raises when Airflow has ended."""
    order = {name: index for index, name in enumerate(api.task_order(dag_id))}
    state, tasks = "", dict[str, TaskView]()
    printed: dict[str, tuple[TaskView, float]] = {}

    def views() -> Iterator[Table]:
        nonlocal state, tasks
        for poll in count():
            check()
            # the run's state first: once it is final, the tasks' states are
            state = api.run_state(dag_id, run_id)
            found = map(TaskView.from_api, api.task_instances(dag_id, run_id))
            tasks = {
                task.name: replace(task, last_message=last_message(task, tasks.get(task.name), poll))
                for task in sorted(found, key=lambda task: order.get(task.name, len(order)))
            }
            if not screen.live:
                _print_changes(screen, tasks.values(), printed)
            yield render(list(tasks.values()), now(), f"Run {run_id}: {state}")
            if state in FINAL:
                return
            time.sleep(POLL_SECONDS)

    def last_message(task: TaskView, before: TaskView | None, poll: int) -> str:
        """Give a task's last message; read at every few polls only, and once more when its state has changed."""
        if task.attempt == 0 or not (task.state == "running" or task.has_failed):
            return ""
        is_due = not task.has_failed and poll % POLLS_PER_LOG == 0
        if before and (before.state, before.attempt) == (task.state, task.attempt) and not is_due:
            return before.last_message
        events = api.log_events(dag_id, run_id, task.name, task.attempt)
        return failure_message(events) if task.has_failed else last_log_line(events)

    display(screen, views())
    return state, list(tasks.values())


def _print_changes(screen: Screen, tasks: Iterable[TaskView], printed: dict[str, tuple[TaskView, float]]) -> None:
    """Print a line for each change since the last one that was printed, and at intervals the progress."""
    for task in tasks:
        before, when = printed.get(task.name, (TaskView(task.name), 0.0))
        has_progress = task.state == "running" and task.last_message != before.last_message
        if (before.label, before.attempt) != (task.label, task.attempt) and task.label != "waiting":
            screen.print(_plain(task, now()))
        elif has_progress and time.monotonic() - when >= PLAIN_PROGRESS_SECONDS:
            screen.print(f"  {task.name}: {task.last_message}")
        else:
            continue
        printed[task.name] = (task, time.monotonic())


def _plain(task: TaskView, at: datetime) -> str:
    attempt = f" (attempt {task.attempt} of {task.attempts})" if task.attempt > 1 else ""
    elapsed = f" after {task.elapsed(at)}" if task.ended and task.elapsed(at) else ""
    last_message = f": {task.last_message}" if task.last_message and task.has_failed else ""
    return f"  {task.name}: {task.label}{attempt}{elapsed}{last_message}"


def _one_line(text: str) -> str:
    plain = Text.from_ansi(" ".join(text.split())).plain
    return "".join(character for character in plain if character.isprintable())


def parse_time(text: str | None) -> datetime | None:
    """Parse a time of the REST API; None if it has none."""
    return datetime.fromisoformat(text) if text else None
