"""A container's log, followed line by line across broken streams and across attempts of the task."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

CHECKPOINT_SECONDS = 2.0


class ContainerLog:
    """Writes each line of a container's log once.

    Parameters
    ----------
    seen : str
        The engine's timestamp of the last line that an earlier attempt wrote; empty if there is none.
    write : callable
        Receives each line.
    store : callable
        Receives the timestamp of the last written line, every few seconds and from :meth:`checkpoint`.
    keep : int
        Number of last lines in :attr:`last_lines`, lines of earlier attempts included.
    is_over : callable
        Whether to stop following a stream, checked at each line.
    """

    def __init__(
        self,
        seen: str,
        write: Callable[[str], object],
        store: Callable[[str], object],
        keep: int,
        is_over: Callable[[], bool] = lambda: False,
    ) -> None:
        self._seen = self._stored = seen
        self._last_timestamp = ""
        self._write = write
        self._store = store
        self._is_over = is_over
        self._stored_at = time.monotonic()
        self.last_lines: deque[str] = deque(maxlen=keep)

    @property
    def read_until(self) -> str:
        """Timestamp of the last line that was read; empty before the first."""
        return self._last_timestamp

    def follow(self, stream: Iterable[bytes], *, until_end: bool) -> None:
        """Write the new lines of a stream with timestamps.

        Parameters
        ----------
        stream : iterable of bytes
            The log from its beginning, or from any moment up to :attr:`read_until`.
        until_end : bool
            Whether the stream goes on until the container ends, so that a last line without a line break is incomplete.
        """
        # several lines of one stream may have the same timestamp
        seen, last_timestamp, rest = self._seen, self._last_timestamp, b""
        for chunk in stream:
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                self._consume(line, seen, last_timestamp)
            if until_end and self._is_over():
                return
        if rest and not until_end:  # the last line has no line break
            self._consume(rest, seen, last_timestamp)

    def checkpoint(self) -> None:
        """Store the timestamp of the last written line, for the next attempt."""
        self._stored_at = time.monotonic()
        if self._seen != self._stored:
            self._store(self._seen)
            self._stored = self._seen

    def _consume(self, line: bytes, seen: str, last_timestamp: str) -> None:
        timestamp, _, text = line.decode("utf-8", errors="replace").rstrip().partition(" ")
        if timestamp > last_timestamp:
            self.last_lines.append(text)
            self._last_timestamp = max(self._last_timestamp, timestamp)
        if timestamp > seen:
            self._write(text)
            self._seen = max(self._seen, timestamp)
            if time.monotonic() - self._stored_at > CHECKPOINT_SECONDS:
                self.checkpoint()
