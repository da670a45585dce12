"""A container's log, followed line by line across broken streams and across tries of the task."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

SECONDS_BETWEEN_NOTES = 2.0


class ContainerLog:
    """Passes a container's log on, each line once.

    Parameters
    ----------
    seen : str
        The engine's time stamp of the last line that was passed on already; empty if none was.
    write : callable
        Takes a line.
    note : callable
        Is told now and then, and by :meth:`note_down`, the time stamp of the last line passed on.
    keep : int
        How many last lines to remember, those of earlier tries among them.
    """

    def __init__(self, seen: str, write: Callable[[str], object], note: Callable[[str], object], keep: int) -> None:
        self._seen = self._noted = seen
        self._remembered = ""
        self._write = write
        self._note = note
        self._noted_at = time.monotonic()
        self.last_lines: deque[str] = deque(maxlen=keep)

    @property
    def read_until(self) -> str:
        """Time stamp of the last line that was read; empty before the first."""
        return self._remembered

    def follow(self, stream: Iterable[bytes], *, to_its_end: bool) -> None:
        """Pass on what is new in a stream of the log, with time stamps.

        Parameters
        ----------
        stream : iterable of bytes
            The log from its beginning, or from any moment up to :attr:`read_until`.
        to_its_end : bool
            Whether the stream goes on until the container ends, and a line without an end is one that broke off.
        """
        # of one stream, lines of the same moment are all passed on
        seen, remembered, rest = self._seen, self._remembered, b""
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._take(line, seen, remembered)
        if rest and not to_its_end:  # a last line that nobody ended
            self._take(rest, seen, remembered)

    def note_down(self) -> None:
        """Note how far the log was passed on, for a next try."""
        self._noted_at = time.monotonic()
        if self._seen != self._noted:
            self._note(self._seen)
            self._noted = self._seen

    def _take(self, line: bytes, seen: str, remembered: str) -> None:
        stamp, _, text = line.decode("utf-8", errors="replace").rstrip().partition(" ")
        if stamp > remembered:
            self.last_lines.append(text)
            self._remembered = max(self._remembered, stamp)
        if stamp > seen:
            self._write(text)
            self._seen = max(self._seen, stamp)
            if time.monotonic() - self._noted_at > SECONDS_BETWEEN_NOTES:
                self.note_down()
