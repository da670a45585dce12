"""Attempts, delays and deadlines of the retry policy."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from numerai_pipeline.core.errors import BadInputError, NetworkError, ProtocolError
from numerai_pipeline.numerai_api.http import ServerBusyError
from numerai_pipeline.numerai_api.retries import RetryPolicy

START = datetime(2026, 8, 11, 12, tzinfo=UTC)


class Clock:
    def __init__(self) -> None:
        self.time = START
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.time += timedelta(seconds=seconds)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def policy(clock: Clock) -> RetryPolicy:
    return RetryPolicy(attempts=3, initial_delay=1, max_delay=60, clock=clock.now, sleep=clock.sleep)


def failing(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("error", [NetworkError("x"), ProtocolError("x")])
def test_retrying_without_deadline_ends_after_the_attempts(policy: RetryPolicy, clock: Clock, error: Exception) -> None:
    with pytest.raises(type(error)):
        policy.retrying("a call")(failing, error)
    assert len(clock.sleeps) == 2


def test_retrying_with_a_deadline_goes_on_until_it(policy: RetryPolicy, clock: Clock) -> None:
    deadline = START + timedelta(hours=1)
    with pytest.raises(NetworkError):
        replace(policy, deadline=deadline).retrying("a call")(failing, NetworkError("x"))
    assert timedelta(0) <= clock.time - deadline < timedelta(seconds=61)
    assert len(clock.sleeps) > 50


def test_retrying_with_a_past_deadline_makes_all_attempts(policy: RetryPolicy, clock: Clock) -> None:
    with pytest.raises(NetworkError):
        replace(policy, deadline=START - timedelta(days=1)).retrying("a call")(failing, NetworkError("x"))
    assert len(clock.sleeps) == 2


def test_retrying_after_bad_input_is_not_repeated(policy: RetryPolicy, clock: Clock) -> None:
    with pytest.raises(BadInputError):
        policy.retrying("a call")(failing, BadInputError("x"))
    assert clock.sleeps == []


def test_delay_doubles_up_to_the_maximum(policy: RetryPolicy) -> None:
    for attempt, seconds in ((1, 1), (2, 2), (5, 16), (7, 60), (1000, 60)):
        assert seconds <= policy.delay(attempt) <= seconds + 1


@pytest.mark.parametrize(("requested", "least"), [(30, 30), (600, 60), (0, 1)])
def test_delay_follows_a_busy_server_up_to_the_maximum(policy: RetryPolicy, requested: float, least: float) -> None:
    assert least <= policy.delay(1, ServerBusyError("x", requested)) <= max(least, 2)
