"""A run as it goes on: a table that is redrawn in place on a terminal, plain lines on each change elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.airflow_api import now
from launcher.console import seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from launcher.airflow_api import AirflowApi
    from launcher.console import Screen

POLL_SECONDS = 1.0
LOG_EVERY_SECONDS = 3.0
# how often a plain log repeats the progress of a task that goes on and on
PLAIN_PROGRESS_SECONDS = 20.0
FINAL = ("success", "failed")

STYLES = {
    "success": "green",
    "running": "cyan",
    "failed": "bold red",
    "upstream_failed": "red",
    "up_for_retry": "yellow",
    "skipped": "dim",
}
WORDS = {
    None: "waiting",
    "scheduled": "waiting",
    "queued": "waiting",
    "success": "done",
    "up_for_retry": "will retry",
    "up_for_reschedule": "waiting",
    "deferred": "running",
    "upstream_failed": "not run",
}


@dataclass(frozen=True)
class TaskView:
    """What is shown of a task."""

    name: str
    state: str | None = None
    attempt: int = 0
    attempts: int = 1
    started: datetime | None = None
    ended: datetime | None = None
    words: str = ""

    @classmethod
    def from_api(cls, instance: dict[str, Any]) -> TaskView:
        """Read a task instance as the REST API gives it."""
        return cls(
            name=instance["task_id"],
            state=instance.get("state"),
            attempt=instance.get("try_number") or 0,
            attempts=(instance.get("max_tries") or 0) + 1,
            started=moment(instance.get("start_date")),
            ended=moment(instance.get("end_date")),
        )

    @property
    def state_in_words(self) -> str:
        """The state as a newcomer reads it."""
        return WORDS.get(self.state, self.state or "waiting")

    @property
    def went_wrong(self) -> bool:
        """Whether its last try failed."""
        return self.state in {"failed", "up_for_retry"}

    def elapsed(self, at: datetime) -> str:
        """How long it has run, or ran."""
        if self.started is None or self.state in {None, "scheduled", "queued", "skipped", "upstream_failed"}:
            return ""
        return seconds(max(((self.ended or at) - self.started).total_seconds(), 0.0))


def own_words(events: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Pick what the task itself said out of its log, without what Airflow says around it."""
    said, depth = [], 0
    for event in events:
        text = str(event.get("event", ""))
        if text.startswith("::group::"):
            depth += 1
        elif text.startswith("::endgroup::"):
            depth = max(depth - 1, 0)
        elif depth == 0 and text.strip() and event.get("logger") != "py.warnings":
            said.append(event)
    return said


def last_words(events: Iterable[dict[str, Any]]) -> str:
    """Give the last line a task said, with any escape codes and line ends taken out."""
    said = own_words(events)
    return _one_line(str(said[-1]["event"])) if said else ""


def what_went_wrong(events: Sequence[dict[str, Any]]) -> str:
    """Give the error a task failed with, in one line: its exception, else the last thing it said."""
    for event in reversed(events):
        details = event.get("error_detail")
        if details:
            error = details[-1]
            return _one_line(f"{error.get('exc_value') or error.get('exc_type')}")
    for event in reversed(own_words(events)):
        if event.get("level") in {"error", "critical"}:
            return _one_line(str(event["event"]))
    return last_words(events) or "it said nothing"


def log_path(events: Iterable[dict[str, Any]]) -> str | None:
    """Find the file a task's log is in, which Airflow tells at the log's beginning."""
    for event in events:
        text = str(event.get("event", ""))
        if text.endswith(".log") and "/attempt=" in text:
            return text
    return None


def render(tasks: Sequence[TaskView], at: datetime, title: str) -> Table:
    """Draw the table of a run's tasks."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False, expand=True)
    table.add_column("task", no_wrap=True)
    table.add_column("state", no_wrap=True, min_width=10)
    table.add_column("try", no_wrap=True, justify="right", min_width=5)
    table.add_column("time", no_wrap=True, justify="right", min_width=10)
    table.add_column("last word", ratio=1, no_wrap=True, overflow="ellipsis", style="dim")
    for task in tasks:
        style = STYLES.get(task.state or "", "dim")
        attempt = f"{task.attempt}/{task.attempts}" if task.attempt else ""
        table.add_row(
            Text(task.name, style="dim" if task.state == "skipped" else ""),
            Text(task.state_in_words, style=style),
            attempt,
            task.elapsed(at),
            Text("" if task.state == "success" else task.words),
        )
    return table


@dataclass
class Follower:
    """Follows a run until it is over."""

    api: AirflowApi
    screen: Screen
    dag_id: str
    run_id: str
    is_alive: Callable[[], bool]
    tasks: list[TaskView] = field(default_factory=list)
    _words: dict[tuple[str, int], tuple[float, str]] = field(default_factory=dict)
    _said: dict[str, tuple[str, float]] = field(default_factory=dict)
    _shown: dict[str, TaskView] = field(default_factory=dict)

    def follow(self, gone: Callable[[], Exception]) -> str:
        """Show the run until it is over; returns its final state.

        Parameters
        ----------
        gone
            Makes the error to raise when Airflow ends in between.
        """
        order = {name: place for place, name in enumerate(self.api.task_order(self.dag_id))}
        if not self.screen.live:
            while True:
                state = self._look(order, gone)
                self._say_changes()
                if state in FINAL:
                    return state
                time.sleep(POLL_SECONDS)
        with Live(console=self.screen.console, auto_refresh=False, transient=False) as live:
            while True:
                state = self._look(order, gone)
                live.update(render(self.tasks, now(), f"Run {self.run_id}: {state}"), refresh=True)
                if state in FINAL:
                    return state
                time.sleep(POLL_SECONDS)

    def _look(self, order: dict[str, int], gone: Callable[[], Exception]) -> str:
        if not self.is_alive():
            raise gone()
        # the run's state first: once it is final, the tasks' states are
        state = self.api.run_state(self.dag_id, self.run_id)
        views = [TaskView.from_api(instance) for instance in self.api.task_instances(self.dag_id, self.run_id)]
        views.sort(key=lambda view: order.get(view.name, len(order)))
        self.tasks = [replace(view, words=self._words_of(view)) for view in views]
        return state

    def _words_of(self, task: TaskView) -> str:
        """Give the last thing a task said; asked for now and then only, and once more when its state has changed."""
        if task.attempt == 0 or not (task.state == "running" or task.went_wrong):
            return ""
        key = (f"{task.name} {task.state}", task.attempt)
        asked, words = self._words.get(key, (0.0, ""))
        due = task.state == "running" or not asked
        if due and time.monotonic() - asked >= LOG_EVERY_SECONDS:
            events = self.api.log_events(self.dag_id, self.run_id, task.name, task.attempt)
            words = what_went_wrong(events) if task.went_wrong else last_words(events)
            self._words[key] = (time.monotonic(), words)
        return words

    def _say_changes(self) -> None:
        for task in self.tasks:
            before = self._shown.get(task.name)
            self._shown[task.name] = task
            said, when = self._said.get(task.name, ("", 0.0))
            changed = before is None or (before.state_in_words, before.attempt) != (task.state_in_words, task.attempt)
            if changed and task.state_in_words != "waiting":
                self.screen.say(_plain(task, now()))
                self._said[task.name] = (task.words, time.monotonic())
            elif task.state == "running" and task.words != said and time.monotonic() - when >= PLAIN_PROGRESS_SECONDS:
                self.screen.say(f"  {task.name}: {task.words}")
                self._said[task.name] = (task.words, time.monotonic())


def _plain(task: TaskView, at: datetime) -> str:
    attempt = f" (try {task.attempt} of {task.attempts})" if task.attempt > 1 else ""
    elapsed = f" after {task.elapsed(at)}" if task.ended and task.elapsed(at) else ""
    words = f": {task.words}" if task.words and task.went_wrong else ""
    return f"  {task.name}: {task.state_in_words}{attempt}{elapsed}{words}"


def _one_line(text: str) -> str:
    plain = Text.from_ansi(" ".join(text.split())).plain
    return "".join(character for character in plain if character.isprintable())


def moment(text: str | None) -> datetime | None:
    """Read a moment as the REST API writes it; None where it gives none."""
    return datetime.fromisoformat(text) if text else None
