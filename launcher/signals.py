"""How the user stops a command: Ctrl-C, SIGTERM, a closed terminal, or an end of the make that started it."""

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

    What tidies up must not be interrupted by an impatient second Ctrl-C: everything that is started is stopped, or the
    machine is left with processes and containers nobody looks after.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._shielded = False

    def install(self) -> None:
        """Listen from now on, whatever the parent had set, except that ``nohup`` keeps its meaning."""
        for number in STOPPING:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._on_signal)

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Hold signals back while something is tidied up that must not be left half done."""
        before, self._shielded = self._shielded, True
        try:
            yield
        finally:
            self._shielded = before

    def shield(self) -> None:
        """Hold signals back from now on: the command only tidies up."""
        self._shielded = True

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        already = self.stopped
        self.stopped = True
        if not already and not self._shielded:
            raise StoppedError


def watch_parent(*, is_make: bool) -> None:
    """Stop this process as by Ctrl-C when its parent is gone, or when the parent is a make that was told to stop.

    GNU make, sent SIGINT alone (a terminal's Ctrl-C goes to its children as well), only waits for its children. That
    it was can be seen: it then has no handler for the signal any more.
    """
    parent = os.getppid()
    catches_at_first = is_make and _catches_sigint(parent)

    def watch() -> None:
        while os.getppid() == parent and (not catches_at_first or _catches_sigint(parent)):
            time.sleep(POLL_SECONDS)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _catches_sigint(pid: int) -> bool:
    """Whether a process has a handler for SIGINT; False where the system does not tell (no /proc)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    masks = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return bool(int(masks.get("SigCgt", "0"), 16) & (1 << (signal.SIGINT - 1)))
