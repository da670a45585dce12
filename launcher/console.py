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
from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Iterator

TITLE_WIDTH = 16


def seconds(duration: float) -> str:
    """Format a duration: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(duration)
    if whole < 60:
        return f"{duration:.1f} s" if duration < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def table(title: str, first: str, *numbers: str) -> Table:
    """Make a table without lines, with a column of names and right-aligned columns."""
    made = Table(box=None, pad_edge=False, title=title, title_justify="left", title_style="bold")
    made.add_column(first, no_wrap=True)
    for name in numbers:
        made.add_column(name, justify="right", no_wrap=True)
    return made


class Step:
    """A running step: `update` displays its activity, `done` its result."""

    def __init__(self, screen: Screen, title: str) -> None:
        self._screen = screen
        self.title = title
        self.outcome = ""
        self.activity = ""
        self.task: TaskID | None = None

    def update(self, text: str) -> None:
        """Display the step's present activity."""
        changed, self.activity = text != self.activity, text
        if self.task is not None:
            self._screen.progress.update(self.task, description=f"{self.title:<{TITLE_WIDTH}}{text}")
        elif changed:
            self._screen.note(self.title, f"{text} …")

    def announce(self, text: str) -> None:
        """Print a line that stays on the screen, about a change of the machine that begins now."""
        self._screen.note(self.title, text)

    def done(self, outcome: str) -> None:
        """Set the step's result, which is displayed when it ends."""
        self.outcome = outcome


class Screen:
    """The terminal, shared by steps that may run in parallel."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False)
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
        self.progress = Progress(*columns, console=self.console, transient=True)
        self._lock = threading.Lock()
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
        for line in "\n".join(details).splitlines():
            self.print(f"  {line}")

    def note(self, title: str, message: str) -> None:
        """Print information that is neither a step nor a failure."""
        self.print(f"{self._dot} {title:<{TITLE_WIDTH}}{message}")

    def success(self, title: str, message: str) -> None:
        """Print a success."""
        text = Text.assemble((self._tick, "bold green"), f" {title:<{TITLE_WIDTH}}{message}")
        self.console.print(text, soft_wrap=True)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show a step while it lasts, and one line when it is over."""
        step = Step(self, title)
        started = time.monotonic()
        if self.live:
            with self._lock:
                step.task = self.progress.add_task(f"{title:<{TITLE_WIDTH}}", total=None)
                self.progress.start()
        try:
            yield step
        except LauncherError as error:
            error.step = error.step or title
            raise
        finally:
            self._end(step)
        self.success(title, f"{step.outcome} ({seconds(time.monotonic() - started)})".lstrip())

    def close(self) -> None:
        """Stop redrawing and keep the text on the screen."""
        with self._lock:
            if self.live:
                self.progress.stop()

    def _end(self, step: Step) -> None:
        with self._lock:
            task, step.task = step.task, None
            if task is not None:
                self.progress.remove_task(task)
                if not self.progress.task_ids:
                    self.progress.stop()
