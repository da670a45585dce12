"""What an operation says while it works: lines a person can read, soon enough to be believed alive."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING, TextIO

from numerai_contract import pulse

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# seconds between two lines of progress: often enough to follow, seldom enough for a log that is kept
_BETWEEN_LINES = 5.0
# an estimate made earlier than this is a guess
_SOONEST_ESTIMATE = 2.0


class Progress:
    """Prints what is being done, how far it is, and how long it may still take.

    Parameters
    ----------
    stream
        Where the lines go; standard output by default.
    clock
        Seconds, never going back; for tests.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._began = clock()
        self._last_line = float("-inf")

    def say(self, text: str) -> None:
        """Print a line."""
        self._last_line = self._clock()
        # sys.stdout is looked up late, since it may be replaced after this object was made
        print(text, file=self._stream or sys.stdout, flush=True)
        pulse.announce_sign()

    @contextlib.contextmanager
    def step(self, doing: str) -> Iterator[None]:
        """Name the work of a block ("fitting the SVM"), say so, and say at its end how long it took.

        Should the block be silent for long, the name is what the supervisor repeats.
        """
        pulse.announce_work(doing)
        self.say(f"{doing} …")
        self._began = began = self._clock()
        yield
        self.say(f"{doing}: done in {duration(self._clock() - began)}")

    def update(self, share: float, text: str) -> bool:
        """Print how far the current step is, unless a line was printed a moment ago.

        Parameters
        ----------
        share
            What is done of the step, from 0 to 1.
        text
            Where it is, e.g. "tree 120 of 300, held-out logloss 0.6921".

        Returns
        -------
        bool
            Whether it was printed.
        """
        share = min(max(share, 0.0), 1.0)
        now = self._clock()
        if share < 1.0 and now - self._last_line < _BETWEEN_LINES:
            return False
        spent = now - self._began
        left = f", about {duration(spent / share - spent)} left" if 0 < share < 1 and spent > _SOONEST_ESTIMATE else ""
        self.say(f"[{share:4.0%} ] {text}{left}".replace("% ]", " %]"))
        return True


def duration(seconds: float) -> str:
    """Put a duration into words: "0.4 s", "40 s", "2 min 30 s", "1 h 05 min"."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
