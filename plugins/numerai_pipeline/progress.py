"""Progress in the log: how much of a long work is done, at most every few seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import logging

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Says in the log how far a work has come.

    Parameters
    ----------
    log : logging.Logger
        Where to say it.
    what : str
        The work, as the line begins.
    total : int
        About how much there is to do, in ``unit``; 0 where nobody knows.
    unit : {"rows", "bytes"}
        What is counted.
    """

    def __init__(self, log: logging.Logger, what: str, total: int, unit: Literal["rows", "bytes"]) -> None:
        self._log = log
        self._what = what
        self._total = total
        self._unit = unit
        self._done = 0
        self._began = self._spoke = time.monotonic()

    def advance(self, amount: int) -> None:
        """Count ``amount`` more as done."""
        self._done += amount
        now = time.monotonic()
        if now - self._spoke >= SECONDS_BETWEEN_LINES:
            self._spoke = now
            self._log.info("%s: %s", self._what, self._state(now - self._began))

    def _state(self, seconds: float) -> str:
        if self._total <= 0:
            return f"{self._amount(self._done)} so far"
        # the total may be an estimate: never promise more than 99 % before the end
        share = min(self._done / self._total, 0.99)
        left = f", about {seconds * (1 - share) / share:.0f} s left" if share > 0 else ""
        return f"{self._amount(self._done)} of about {self._amount(self._total)} ({share:.0%}{left})"

    def _amount(self, count: int) -> str:
        return f"{count:,} rows" if self._unit == "rows" else f"{count / 1e6:,.1f} MB"
