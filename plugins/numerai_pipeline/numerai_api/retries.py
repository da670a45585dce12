"""Retry policy of all requests: a number of attempts, and a deadline until which attempts go on."""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import tenacity

from numerai_pipeline.core.errors import NetworkError, ProtocolError
from numerai_pipeline.numerai_api.http import ServerBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Give the present moment."""
    return datetime.now(UTC)


TRANSIENT = (NetworkError, ProtocolError)
"""Errors after which another attempt can succeed."""


@dataclass(frozen=True)
class RetryPolicy:
    """When a failed request is sent again, and when it is given up.

    Attributes
    ----------
    attempts : int
        Attempts before giving up, at least 1. A download counts only attempts in a row that received no new bytes.
    initial_delay, max_delay : float
        Seconds between attempts: doubling from the first to the last, with jitter.
    deadline : datetime, optional
        Moment (with time zone) until which attempts go on, however many they are: the close of a round. A deadline in
        the past has no effect.
    clock, sleep : callable
        The present moment, and a pause of so many seconds.
    """

    attempts: int = 5
    initial_delay: float = 1.0
    max_delay: float = 60.0
    deadline: datetime | None = None
    clock: Callable[[], datetime] = field(default=utc_now, repr=False)
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def is_exhausted(self, attempts: int) -> bool:
        """Whether to give up after so many failed attempts."""
        return attempts >= self.attempts and not (self.deadline is not None and self.clock() < self.deadline)

    def delay(self, attempt: int, error: BaseException | None = None) -> float:
        """Give the seconds to wait after the n-th failed attempt (from 1), at least those a busy server requests."""
        backoff = min(self.initial_delay * 2.0 ** min(attempt - 1, 30), self.max_delay)
        requested = error.retry_after if isinstance(error, ServerBusyError) else 0.0
        jitter = random.uniform(0, self.initial_delay)  # noqa: S311 - spreads attempts of several tasks
        return max(backoff + jitter, min(requested, self.max_delay))

    def retrying(self, what: str, failed_attempts: Callable[[], int] | None = None) -> tenacity.Retrying:
        """Build the caller that repeats a function after transient errors and logs each failure.

        Parameters
        ----------
        what : str
            Subject of the log lines.
        failed_attempts : callable, optional
            Gives the number of failed attempts that count; all of them without it.
        """

        def is_over(state: tenacity.RetryCallState) -> bool:
            return self.is_exhausted(failed_attempts() if failed_attempts else state.attempt_number)

        def wait(state: tenacity.RetryCallState) -> float:
            return self.delay(state.attempt_number, error_of(state))

        def log_failure(state: tenacity.RetryCallState) -> None:
            seconds = state.next_action.sleep if state.next_action else 0
            log.warning("%s: %s; next attempt in %.1f s", what, error_of(state), seconds)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(TRANSIENT),
            stop=is_over,
            wait=wait,
            sleep=self.sleep,
            before_sleep=log_failure,
            reraise=True,
        )


def error_of(state: tenacity.RetryCallState) -> BaseException | None:
    """Give the error of the last attempt."""
    return state.outcome.exception() if state.outcome else None
