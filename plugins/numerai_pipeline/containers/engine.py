"""Calls of a Docker engine that may be unreachable for a while: restarted, upgraded, or too busy to answer."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

import docker.errors
import requests
import urllib3
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

from numerai_pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")
log = logging.getLogger(__name__)

# not OSError, which includes a full disk
_CONNECTION_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


class EngineUnavailableError(PipelineError):
    """The engine was unreachable for too long; the state of its containers is unknown."""


class NoConnectionError(Exception):
    """A connection to the engine could not be opened."""


def is_connection_error(error: BaseException) -> bool:
    """Whether an error means that the engine is unreachable; an answer of any kind means that it is not."""
    if isinstance(error, docker.errors.APIError):
        return error.status_code == 503
    return isinstance(error, (*_CONNECTION_ERRORS, NoConnectionError))


class RetryingEngine:
    """Repeats calls while the engine is unreachable.

    Parameters
    ----------
    timeout : float
        Seconds after which a call fails.
    should_stop : callable
        Whether to give up at once, since the result is no longer needed.

    Attributes
    ----------
    unreachable_seconds : float
        Total time for which the engine was unreachable.
    """

    def __init__(self, timeout: float, should_stop: Callable[[], bool] = lambda: False) -> None:
        self._timeout = timeout
        self._should_stop = should_stop
        self.unreachable_seconds = 0.0

    def call(self, function: Callable[[], Result]) -> Result:
        """Call a function that calls the engine, until the engine answers.

        Raises
        ------
        EngineUnavailableError
            When it did not answer within the timeout.
        Exception
            Any other error of the function.
        """
        began = time.monotonic()
        retrying = Retrying(
            retry=retry_if_exception(is_connection_error),
            wait=wait_exponential(multiplier=0.25, max=3),
            stop=lambda _state: self._should_stop() or time.monotonic() - began > self._timeout,
            before_sleep=self._log_first_failure,
            reraise=True,
        )
        try:
            result = retrying(function)
        except Exception as error:
            if not is_connection_error(error):
                raise
            seconds = time.monotonic() - began
            self.unreachable_seconds += seconds
            msg = (
                f"Docker engine unreachable for {seconds:.0f} s ({error}). Check that it is running; the next attempt"
                " will reattach to the container if it still exists"
            )
            raise EngineUnavailableError(msg) from error
        if retrying.statistics.get("attempt_number", 1) > 1:
            seconds = time.monotonic() - began
            self.unreachable_seconds += seconds
            log.info("the Docker engine answers again, after %.0f s", seconds)
        return result

    def _log_first_failure(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            error = state.outcome.exception()
            log.warning("Docker engine unreachable (%s); retrying for up to %.0f s", error, self._timeout)
