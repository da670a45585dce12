"""Stops a command on Ctrl-C, SIGTERM, a closed terminal, or the end of the make that started it."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import StoppedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
POLL_SECONDS = 0.5


class StopSignals:
    """Turns the first stopping signal into a :class:`StoppedError` in the main thread, and ignores further ones.

    A second Ctrl-C must not interrupt the clean-up, which stops all started processes and containers.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._ignoring = False

    def install(self) -> None:
        """Install the handlers, also of signals that the parent ignored, except for SIGHUP under ``nohup``."""
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    @contextmanager
    def signals_ignored(self) -> Iterator[None]:
        """Ignore signals during a clean-up that must not be interrupted."""
        before, self._ignoring = self._ignoring, True
        try:
            yield
        finally:
            self._ignoring = before

    def ignore_signals(self) -> None:
        """Ignore signals from now on: the command only cleans up."""
        self._ignoring = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        already = self.stopped
        self.stopped = True
        if not already and not self._ignoring:
            raise StoppedError


def watch_parent(*, is_make: bool) -> None:
    """Stop this process as by Ctrl-C when its parent has ended, or when the parent is a make that received a signal.

    GNU make, when SIGINT is sent to it alone (a terminal's Ctrl-C reaches its children as well), only waits for its
    children. This can be detected: it then has no handler for the signal any more.
    """
    parent = os.getppid()
    catches_at_first = is_make and _catches_sigint(parent)

    def watch() -> None:
        while os.getppid() == parent and (not catches_at_first or _catches_sigint(parent)):
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _catches_sigint(pid: int) -> bool:
    """Whether a process has a handler for SIGINT; False on systems without /proc."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return bool(int(masks.get("SigCgt", "0"), 16) & (1 << (signal.SIGINT - 1)))
