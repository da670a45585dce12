"""Stop requests (SIGTERM) for an operation that can deliver a result when it receives one."""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextlib.contextmanager
def stop_requests() -> Iterator[list[signal.Signals]]:
    """Collect stop requests instead of ending at once, so that the operation can deliver a result.

    The supervisor kills the operation 2 s after a request. Outside the block a request ends the operation at once,
    unless one arrived inside: then the operation is delivering its result, and further requests are ignored.

    Yields
    ------
    list of signal.Signals
        The requests so far; to be checked several times a second.
    """
    requests: list[signal.Signals] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        requests.append(signal.Signals(number))

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield requests
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN if requests else before)
