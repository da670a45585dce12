"""The trigger that waits for a round in Airflow's triggerer, where waiting costs no worker."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import tenacity
from airflow.triggers.base import BaseTrigger, TriggerEvent

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.numerai_api.http import ServerBusyError
from numerai_pipeline.numerai_api.readiness import RoundPoller, RoundStatus, round_poller
from numerai_pipeline.numerai_api.retries import TRANSIENT, error_of, utc_now

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

MAX_DELAY_SECONDS = 600.0
"""Seconds between two polls at most, while a server fails without naming a time."""
LOG_INTERVAL = timedelta(minutes=10)


class RoundTrigger(BaseTrigger):
    """Fires when the round of a day is ready, or when it is too late for that.

    Its arguments are all its state, so that it continues after a restart of the triggerer. Addresses and time limits
    are the settings of the triggerer's environment.

    Parameters
    ----------
    source : {"numerai", "practice"}
        The server.
    day_opens : str
        ISO 8601 moment, with its time zone, at which the day's round may first open.
    version : str
        The dataset version whose live file is needed, or ``latest``.
    clock, sleep : callable, optional
        The real ones, except in tests.
    """

    def __init__(
        self,
        source: Literal["numerai", "practice"],
        day_opens: str,
        version: str,
        *,
        clock: Callable[[], datetime] = utc_now,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.source = source
        self.day_opens = day_opens
        self.version = version
        self._clock = clock
        self._sleep = sleep
        self._logged_at: datetime | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the arguments to build it again, here or in another triggerer."""
        return (
            f"{RoundTrigger.__module__}.{RoundTrigger.__qualname__}",
            {"source": self.source, "day_opens": self.day_opens, "version": self.version},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once: a :class:`RoundStatus` as JSON, or the state ``failed`` where waiting cannot help."""
        try:
            payload = (await self._wait()).to_json()
        except BadInputError as error:
            payload = {"state": "failed", "reason": str(error)}
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def _wait(self) -> RoundStatus:
        poll_seconds = load_settings().round_poll_seconds
        # importing numerapi takes a while, as does a query: both in a thread, for other triggers share this one
        poller = await asyncio.to_thread(
            round_poller, self.source, datetime.fromisoformat(self.day_opens), self.version, self._clock
        )
        polls = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda status: status.state == "waiting"),
            wait=_capped_at_deadline(poller, tenacity.wait_random(poll_seconds, 1.25 * poll_seconds)),
            sleep=self._sleep,
        )
        status: RoundStatus = await polls(self._poll, poller, poll_seconds)
        self.log.info("%s", status.reason)
        return status

    async def _poll(self, poller: RoundPoller, poll_seconds: float) -> RoundStatus:
        """Poll once; while the server fails, again at growing intervals and never beyond the deadline."""

        def too_late(state: tenacity.RetryCallState) -> RoundStatus:
            return poller.missed_status(error_of(state))

        def log_failure(state: tenacity.RetryCallState) -> None:
            self._log_throttled(f"{error_of(state)}; polling again")

        attempts = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(TRANSIENT),
            stop=lambda _state: poller.seconds_left <= 0,
            wait=_capped_at_deadline(poller, _backoff(poll_seconds)),
            before_sleep=log_failure,
            retry_error_callback=too_late,
            sleep=self._sleep,
        )
        status: RoundStatus = await attempts(asyncio.to_thread, poller.poll)
        if status.state == "waiting":
            self._log_throttled(f"waiting: {status.reason}; until {poller.deadline:%a %Y-%m-%d %H:%M} UTC")
        return status

    def _log_throttled(self, message: str) -> None:
        now = self._clock()
        if self._logged_at is None or now - self._logged_at >= LOG_INTERVAL:
            self._logged_at = now
            self.log.info("%s", message)


def _backoff(poll_seconds: float) -> Callable[[tenacity.RetryCallState], float]:
    """Double the wait after each failure, with jitter, and wait at least as long as the server requests."""
    exponential = tenacity.wait_exponential_jitter(
        multiplier=poll_seconds, max=max(MAX_DELAY_SECONDS, poll_seconds), jitter=poll_seconds / 4
    )

    def wait(state: tenacity.RetryCallState) -> float:
        error = error_of(state)
        return max(exponential(state), error.retry_after if isinstance(error, ServerBusyError) else 0.0)

    return wait


def _capped_at_deadline(
    poller: RoundPoller, wait: Callable[[tenacity.RetryCallState], float]
) -> Callable[[tenacity.RetryCallState], float]:
    """Shorten waits to the deadline, so that a missed round is reported at once."""
    return lambda state: min(wait(state), max(poller.seconds_left, 1.0))
