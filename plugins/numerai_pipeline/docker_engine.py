"""The Docker engine as something that may be away for a while: restarted, upgraded, or too busy to answer."""

from __future__ import annotations

import logging
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import docker.errors
import requests
import urllib3
from airflow.sdk.exceptions import AirflowException
from tenacity import RetryCallState, Retrying, retry_if_exception, wait_exponential

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docker import APIClient

Result = TypeVar("Result")
log = logging.getLogger(__name__)

# not OSError: a full disk is one, too
_BROKEN_CONNECTION = (requests.RequestException, urllib3.exceptions.HTTPError, ConnectionError, TimeoutError)


class EngineSilentError(AirflowException):
    """The engine stopped answering, and did not answer again in time. What its containers do, nobody knows."""


class _NotReachedError(Exception):
    """There is no connection to the engine."""


def is_silence(error: BaseException) -> bool:
    """Whether an error tells that the engine could not answer, and nothing else; an answer of any kind is none."""
    if isinstance(error, docker.errors.APIError):
        return error.status_code == 503
    return isinstance(error, (*_BROKEN_CONNECTION, _NotReachedError))


@contextmanager
def reaching() -> Iterator[None]:
    """Tell that there is no connection from what the Docker provider makes of that, which is an error like any."""
    try:
        yield
    except docker.errors.APIError:
        raise
    except (AirflowException, docker.errors.DockerException) as error:
        raise _NotReachedError(str(error)) from error


class PatientEngine:
    """Asks an engine again while it does not answer.

    Parameters
    ----------
    patience : float
        Seconds without an answer after which to give up.
    give_up : callable
        Says whether nobody waits for the answer any more.

    Attributes
    ----------
    silent_seconds : float
        How long the engine did not answer, all in all.
    """

    def __init__(self, patience: float, give_up: Callable[[], bool] = lambda: False) -> None:
        self._patience = patience
        self._give_up = give_up
        self.silent_seconds = 0.0

    def ask(self, question: Callable[[], Result]) -> Result:
        """Call ``question``, which asks the engine something, until there is an answer.

        Raises
        ------
        EngineSilentError
            When there was none for too long.
        Exception
            What ``question`` raises otherwise.
        """
        began = time.monotonic()
        retrying = Retrying(
            retry=retry_if_exception(is_silence),
            wait=wait_exponential(multiplier=0.25, max=3),
            stop=lambda _state: self._give_up() or time.monotonic() - began > self._patience,
            before_sleep=self._say,
            reraise=True,
        )
        try:
            answer = retrying(question)
        except Exception as error:
            if not is_silence(error):
                raise
            seconds = time.monotonic() - began
            self.silent_seconds += seconds
            msg = (
                f"the Docker engine stopped answering, for {seconds:.0f} s by now ({error}): look whether it runs."
                " The next try goes on with the container if it is still there"
            )
            raise EngineSilentError(msg) from error
        if retrying.statistics.get("attempt_number", 1) > 1:
            seconds = time.monotonic() - began
            self.silent_seconds += seconds
            log.info("the Docker engine answers again, after %.0f s", seconds)
        return answer

    def _say(self, state: RetryCallState) -> None:
        if state.attempt_number == 1 and state.outcome is not None:
            error = state.outcome.exception()
            log.warning("the Docker engine does not answer (%s); waiting up to %.0f s", error, self._patience)


def remove_container(client: APIClient, container_id: str) -> None:
    """Remove a container, working or not, with its volumes; one that is gone already is fine."""
    try:
        client.remove_container(container_id, force=True, v=True)
    except docker.errors.NotFound:
        return
    except docker.errors.APIError as error:
        # 409: somebody else is removing it this very moment.
        if error.status_code != 409:
            raise
