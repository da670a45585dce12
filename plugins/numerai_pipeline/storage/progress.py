"""Progress of long work in the log, at most every few seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import logging

SECONDS_BETWEEN_LINES = 5.0


class Progress:
    """Logs how much of a long work is done.

    Parameters
    ----------
    log : logging.Logger
        The log to write to.
    what : str
        The work; each line begins with it.
    total : int
        Approximate amount of work, in ``unit``; 0 if unknown.
    unit : {"rows", "bytes"}
        The unit of ``total`` and ``done``.
    done : int
        Amount that an earlier attempt has done already.
    """

    def __init__(
        self, log: logging.Logger, what: str, total: int, unit: Literal["rows", "bytes"], done: int = 0
    ) -> None:
        self._log = log
        self._what = what
        self._total = total
        self._unit = unit
        self._done = self._initial_done = done
        self._began = self._last_logged = time.monotonic()

    def advance(self, amount: int) -> None:
        """Count ``amount`` more as done."""
        self._done += amount
        now = time.monotonic()
        if now - self._last_logged >= SECONDS_BETWEEN_LINES:
            self._last_logged = now
            self._log.info("%s: %s", self._what, self._format_state(now - self._began))

    def finish(self, outcome: str) -> None:
        """Log that the work is done, its duration and its speed."""
        seconds = max(time.monotonic() - self._began, 1e-3)
        speed = self._amount(round((self._done - self._initial_done) / seconds))
        self._log.info("%s: %s %s in %.0f s (%s/s)", self._what, self._amount(self._done), outcome, seconds, speed)

    def _format_state(self, seconds: float) -> str:
        speed = (self._done - self._initial_done) / max(seconds, 1e-3)
        pace = f"{self._amount(round(speed))}/s"
        if self._total <= 0:
            return f"{self._amount(self._done)} so far, {pace}"
        # the total may be an estimate: never more than 99 % before the end
        share = min(self._done / self._total, 0.99)
        rest = f", about {(self._total - self._done) / speed:.0f} s left" if self._total > self._done and speed else ""
        return f"{self._amount(self._done)} of about {self._amount(self._total)} ({share:.0%}), {pace}{rest}"

    def _amount(self, count: int) -> str:
        return f"{count:,} rows" if self._unit == "rows" else f"{count / 1e6:,.1f} MB"
