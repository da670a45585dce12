"""Requests to stop (SIGTERM), for an operation that has something to deliver when it is asked to."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextlib.contextmanager
def stop_requests() -> Iterator[list[signal.Signals]]:
    """Collect requests to stop instead of ending at once: there may be something to deliver.

    The supervisor waits 2 s from a request on, then ends the operation. Outside the block a request ends it at once,
    unless one was heard inside: then what is at hand is being delivered, and another changes nothing.

    Yields
    ------
    list of signal.Signals
        Those heard so far; to be looked at several times a second.
    """
    requests: list[signal.Signals] = []

    def take(number: int, _frame: FrameType | None) -> None:
        requests.append(signal.Signals(number))

    before = signal.signal(signal.SIGTERM, take)
    try:
        yield requests
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if requests else before)
