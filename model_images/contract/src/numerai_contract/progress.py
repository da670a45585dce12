"""Progress lines of an operation: readable, and frequent enough to show that it is running."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, TextIO

from numerai_contract import heartbeat

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# seconds between two lines of progress: often enough to follow, seldom enough for a stored log
_LINE_INTERVAL = 5.0
# an earlier estimate is a guess
_MIN_SECONDS_TO_ESTIMATE = 2.0


class Progress:
    """Logs the current step, the share of it that is done, and the time it may still take.

    Parameters
    ----------
    stream
        Where the lines go; standard output by default.
    clock
        Monotonic seconds; for tests.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began = clock()
        self._last_line = float("-inf")

    def log(self, text: str) -> None:
        """Print a line."""
        self._last_line = self._clock()
        # sys.stdout is looked up late, since it may be replaced after this object was created
        print(text, file=self._stream or sys.stdout, flush=True)
        heartbeat.report_activity()

    @contextlib.contextmanager
    def step(self, description: str) -> Iterator[None]:
        """Log the beginning of a block's work ("fitting the SVM"), and at its end the time it took.

        If the block prints nothing for a while, the supervisor repeats the description.
        """
        heartbeat.report_step(description)
        self.log(f"{description} …")
        self._began = began = self._clock()
        yield
        self.log(f"{description}: done in {duration(self._clock() - began)}")

    def update(self, share: float, text: str) -> bool:
        """Log the progress of the current step, unless a line was printed a moment ago.

        Parameters
        ----------
        share
            The share of the step that is done, from 0 to 1.
        text
            The position, e.g. "tree 120 of 300, held-out logloss 0.6921".

        Returns
        -------
        bool
            Whether it was printed.
        """
        share = min(max(share, 0.0), 1.0)
        now = self._clock()
        if share < 1.0 and now - self._last_line < _LINE_INTERVAL:
            return False
        spent = now - self._began
        can_estimate = 0 < share < 1 and spent > _MIN_SECONDS_TO_ESTIMATE
        remaining = f", about {duration(spent / share - spent)} left" if can_estimate else ""
        self.log(f"[{share:4.0%} ] {text}{remaining}".replace("% ]", " %]"))
        return True


def duration(seconds: float) -> str:
    """Format a duration: "0.4 s", "40 s", "2 min 30 s", "1 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    rounded = round(seconds)
    if rounded < 60:
        return f"{rounded} s"
    minutes, rest = divmod(rounded, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
