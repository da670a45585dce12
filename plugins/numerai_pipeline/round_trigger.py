"""The trigger that waits for a round in Airflow's triggerer, where waiting costs no worker."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

import tenacity
from airflow.triggers.base import BaseTrigger, TriggerEvent

from numerai_pipeline.downloads import BusyError
from numerai_pipeline.errors import BadInputError, NetworkError, ProtocolError
from numerai_pipeline.readiness import Readiness, RoundWatch, utc_now, watch_round
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

LONGEST_PAUSE = 600.0
"""Seconds between two looks at most, while a server fails and does not say when it will be back."""
TELL_EVERY = timedelta(minutes=10)


class RoundTrigger(BaseTrigger):
    """Fires when the round of a day is ready, or when it is too late for that.

    What it is made of says all it needs, so that it goes on after a restart of the triggerer. Addresses and time limits
    are the triggerer's own settings.

    Parameters
    ----------
    source : {"numerai", "practice"}
        Whom to ask.
    day_opens : str
        ISO 8601 moment, with its time zone, at which the day's round may first open.
    version : str
        The dataset version whose live file is needed, or ``latest``.
    clock, sleep : callable, optional
        The real ones unless a test has a time of its own.
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
        self._told: datetime | None = None

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give what it takes to build it again, here or in another triggerer."""
        return (
            f"{RoundTrigger.__module__}.{RoundTrigger.__qualname__}",
            {"source": self.source, "day_opens": self.day_opens, "version": self.version},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then fire once: a :class:`Readiness` as JSON, or the state ``failed`` where waiting cannot help."""
        try:
            payload = (await self._wait()).to_json()
        except BadInputError as error:
            payload = {"state": "failed", "reason": str(error)}
        yield TriggerEvent(payload)  # type: ignore[no-untyped-call]

    async def _wait(self) -> Readiness:
        poll = load_settings().round_poll_seconds
        # importing numerapi takes a while, as does asking: both in a thread, for other triggers share this one
        watch = await asyncio.to_thread(
            watch_round, self.source, datetime.fromisoformat(self.day_opens), self.version, self._clock
        )
        looks = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_result(lambda readiness: readiness.state == "waiting"),
            wait=_not_beyond_the_deadline(watch, tenacity.wait_random(poll, 1.25 * poll)),
            sleep=self._sleep,
        )
        readiness: Readiness = await looks(self._look, watch, poll)
        self.log.info("%s", readiness.reason)
        return readiness

    async def _look(self, watch: RoundWatch, poll: float) -> Readiness:
        """Look once, again and again while the server fails: less and less often, and never beyond the deadline."""

        def too_late(state: tenacity.RetryCallState) -> Readiness:
            return watch.missed(_error_of(state))

        def tell(state: tenacity.RetryCallState) -> None:
            self._tell(f"{_error_of(state)}; trying again")

        tries = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type((NetworkError, ProtocolError)),
            stop=lambda _state: watch.seconds_left <= 0,
            wait=_not_beyond_the_deadline(watch, _politely(poll)),
            before_sleep=tell,
            retry_error_callback=too_late,
            sleep=self._sleep,
        )
        readiness: Readiness = await tries(asyncio.to_thread, watch.look)
        if readiness.state == "waiting":
            self._tell(f"waiting: {readiness.reason}; until {watch.deadline:%a %Y-%m-%d %H:%M} UTC")
        return readiness

    def _tell(self, words: str) -> None:
        now = self._clock()
        if self._told is None or now - self._told >= TELL_EVERY:
            self._told = now
            self.log.info("%s", words)


def _error_of(state: tenacity.RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome else None


def _politely(poll: float) -> Callable[[tenacity.RetryCallState], float]:
    """Wait twice as long after each failure, with jitter, and at least as long as the server asks for."""
    backoff = tenacity.wait_exponential_jitter(multiplier=poll, max=max(LONGEST_PAUSE, poll), jitter=poll / 4)

    def wait(state: tenacity.RetryCallState) -> float:
        error = _error_of(state)
        return max(backoff(state), error.retry_after if isinstance(error, BusyError) else 0.0)

    return wait


def _not_beyond_the_deadline(
    watch: RoundWatch, wait: Callable[[tenacity.RetryCallState], float]
) -> Callable[[tenacity.RetryCallState], float]:
    """Cut waits short at the deadline, so that what is missed is said then and not later."""
    return lambda state: min(wait(state), max(watch.seconds_left, 1.0))
