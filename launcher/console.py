"""The launcher's output: one line for each step, with a tick and its duration.

On a terminal a spinner shows the present activity and the time so far; in a log or a pipe the same texts are printed as
plain lines, without escape codes.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import TaskID

TITLE_WIDTH = 16


def seconds(duration: float) -> str:
    """Format a duration: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if duration < 10:
        return f"{duration:.1f} s"
    whole = round(duration)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Step:
    """A running step: `update` displays its activity, `done` its result."""

    def __init__(self, screen: Screen, title: str) -> None:
        self._screen = screen
        self.title = title
        self.outcome = ""

    def update(self, text: str) -> None:
        """Display the step's present activity."""
        self._screen.update_status(self, text)

    def done(self, outcome: str) -> None:
        """Set the step's result, which is displayed when it ends."""
        self.outcome = outcome


class Screen:
    """The terminal, shared by steps that may run in parallel."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        self._lock = threading.Lock()
        self._progress: Progress | None = None
        self._tasks: dict[Step, TaskID] = {}
        self._printed: dict[Step, str] = {}
        fancy = self.console.encoding.lower().startswith("utf")
        self._tick, self._cross, self._dot = ("✓", "✗", "·") if fancy else ("ok", "!!", "..")

    @property
    def live(self) -> bool:
        """Whether the output can be redrawn in place."""
        return self.console.is_terminal and not self.console.is_dumb_terminal

    def print(self, text: str = "", style: str = "") -> None:
        """Print a line without markup and wrapping."""
        self.console.print(Text(text, style=style), soft_wrap=True)

    def error(self, title: str, message: str, *details: str) -> None:
        """Print an error and its remedy."""
        self.print(f"{self._cross} {title:<{TITLE_WIDTH}}{message}".rstrip(), style="bold red")
        for detail in details:
            for line in detail.splitlines() or [""]:
                self.print(f"  {line}")

    def note(self, title: str, message: str) -> None:
        """Print information that is neither a step nor a failure."""
        self.print(f"{self._dot} {title:<{TITLE_WIDTH}}{message}")

    def success(self, title: str, message: str) -> None:
        """Print a success."""
        self.console.print(
            Text.assemble((self._tick, "bold green"), f" {title:<{TITLE_WIDTH}}{message}"), soft_wrap=True
        )

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while it lasts, and one line when it is over."""
        step = Step(self, title)
        started = time.monotonic()
        self._open(step)
        try:
            yield step
        except BaseException as error:
            self._close(step)
            if isinstance(error, LauncherError) and not error.step:
                # the error is reported as this step's
                error.step = title
            raise
        self._close(step)
        self.success(title, f"{step.outcome} ({seconds(time.monotonic() - started)})".lstrip())

    def close(self) -> None:
        """Stop redrawing and keep the text on the screen."""
        with self._lock:
            self._tasks.clear()
            self._stop_progress()

    def update_status(self, step: Step, text: str) -> None:
        """Display a step's present activity (see `Step.update`)."""
        with self._lock:
            if self._progress is not None and step in self._tasks:
                self._progress.update(self._tasks[step], description=_description(step.title, text))
                return
            if self._printed.get(step) == text:
                return
            self._printed[step] = text
        self.note(step.title, f"{text} …")

    def _open(self, step: Step) -> None:
        if not self.live:
            return
        with self._lock:
            if self._progress is None:
                self._progress = Progress(
                    SpinnerColumn(),
                    TextColumn("{task.description}", markup=False),
                    TimeElapsedColumn(),
                    console=self.console,
                    transient=True,
                )
                self._progress.start()
            self._tasks[step] = self._progress.add_task(_description(step.title, ""), total=None)

    def _close(self, step: Step) -> None:
        with self._lock:
            self._printed.pop(step, None)
            task = self._tasks.pop(step, None)
            if self._progress is not None and task is not None:
                self._progress.remove_task(task)
            if not self._tasks:
                self._stop_progress()

    def _stop_progress(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = None


def _description(title: str, text: str) -> str:
    return f"{title:<{TITLE_WIDTH}}{text}"
