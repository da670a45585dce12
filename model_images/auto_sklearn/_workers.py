"""Processes of an operation's own: work that can be cut off at any moment, and that cannot outlive who started it."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import sys
import tempfile
import time
import traceback
from typing import TYPE_CHECKING, Any

from numerai_contract.exits import NotEnoughMemoryError, understood

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


class Worker:
    """A forked process that does one thing and tells of it as it goes.

    It leads a process group of its own, so that it ends together with whatever it starts. What it and its libraries
    print goes to a file, since the operation's log is for what the operation says, and their temporary files beside it.

    Parameters
    ----------
    work
        Called in the new process with a function that tells this one something JSON can hold.
    log
        Where its output goes.
    niceness
        How far it steps back for others, from 0 to 19.

    Attributes
    ----------
    error : str or None
        What it failed with, once it has ended and when it said.
    short_of_memory : bool
        Whether that was a lack of memory.
    """

    def __init__(
        self, work: Callable[[Callable[[dict[str, Any]], None]], None], log: Path, *, niceness: int = 0
    ) -> None:
        self.error: str | None = None
        self.short_of_memory = False
        self._status: int | None = None
        self._log = log
        self._unread = b""
        self._reader, writer = os.pipe()
        sys.stdout.flush()
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            os.close(self._reader)
            _be_the_worker(work, writer, log, niceness, parent)
        with contextlib.suppress(OSError):
            os.setpgid(self._process, self._process)
        os.close(writer)
        os.set_blocking(self._reader, False)

    def told(self, patience: float) -> list[dict[str, Any]]:
        """Return what it has told since the last call; wait up to `patience` seconds for something."""
        if self._reader < 0:
            time.sleep(patience)
            return []
        select.select([self._reader], [], [], patience)
        messages: list[dict[str, Any]] = []
        with contextlib.suppress(BlockingIOError):
            while block := os.read(self._reader, 65_536):
                *lines, self._unread = (self._unread + block).split(b"\n")
                messages += [json.loads(line) for line in lines]
            # nobody writes any more
            os.close(self._reader)
            self._reader = -1
        for message in messages:
            if "failed" in message:
                self.error, self.short_of_memory = message["failed"], message["memory"]
        return [message for message in messages if "failed" not in message]

    @property
    def at_work(self) -> bool:
        """Whether it has not ended."""
        if self._status is None:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                self._status = status
        return self._status is None

    @property
    def trouble(self) -> str | None:
        """Say how it failed, in words; None while it is at work, and when it ended well."""
        if self.at_work or self._status == 0:
            return None
        if self.error is not None:
            return self.error
        if os.WIFSIGNALED(self._status or 0):
            number = os.WTERMSIG(self._status or 0)
            if number == signal.SIGKILL:
                self.short_of_memory = True
                return "something killed it, most likely the system for lack of memory"
            return f"a library crashed with {signal.Signals(number).name}"
        last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        return f"it ended without a word; the last of its log: {''.join(last) or 'nothing'}"

    def end(self) -> None:
        """End it and whatever it started, now."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, signal.SIGKILL)
        if self._status is None:
            self._status = os.waitpid(self._process, 0)[1]


def _be_the_worker(
    work: Callable[[Callable[[dict[str, Any]], None]], None], writer: int, log: Path, niceness: int, parent: int
) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        # the parent may be killed without a chance to end its workers
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(code)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.nice(niceness)
        # what its libraries leave lying about is cleared away with the rest
        os.environ["TMPDIR"] = tempfile.tempdir = str(log.parent)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        with os.fdopen(writer, "w", encoding="utf-8", buffering=1) as line:

            def tell(message: dict[str, Any]) -> None:
                line.write(json.dumps(message, default=_plain) + "\n")

            try:
                work(tell)
                code = 0
            # whatever went wrong must reach the parent as a sentence
            except BaseException as error:  # noqa: BLE001
                traceback.print_exc()
                known = understood(error)
                said = str(known or error).strip() or type(error).__name__
                tell({"failed": said.splitlines()[0][:400], "memory": isinstance(known, NotEnoughMemoryError)})
    finally:
        # at once, without the shutdown in which native libraries like to hang
        os._exit(code)


def _plain(value: Any) -> Any:
    """Turn a number of numpy's into one of Python's."""
    return value.item() if hasattr(value, "item") else str(value)
