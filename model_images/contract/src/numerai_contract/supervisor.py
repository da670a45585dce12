"""The process that watches over an operation.

An operation spends its time inside native code, which neither answers signals nor, where it keeps Python's lock (as
Intel's SVM does for a whole fit), lets a thread speak. So it runs in a
process of its own, and this one, which imports nothing heavy, does what must not wait: it says what the operation is
doing when nobody else does, stops it within moments of SIGTERM, tells a lack of memory from a bug, removes what was
half-written, and has the last word.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerai_contract import pulse
from numerai_contract.exits import Exit, memory_advice
from numerai_contract.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable

# the kernel's count of processes it killed for lack of memory: cgroup v2, then v1
_OUT_OF_MEMORY_COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)

# seconds in which an operation that listens to SIGTERM may deliver what it has
_NOTICE = 2.0


class Supervisor:
    """Runs an operation in a child process and watches over it.

    Parameters
    ----------
    heartbeat
        Seconds of silence after which the supervisor says what the operation is doing.
    memory_limit
        The container's memory in MiB, for the message when it was not enough; None when unknown.
    """

    def __init__(self, heartbeat: float, memory_limit: int | None = None) -> None:
        self._heartbeat = heartbeat
        self._memory_limit = memory_limit
        self._doing = "starting"
        self._doing_since = self._last_sign = time.monotonic()
        self._parts: set[Path] = set()
        self._failure: tuple[Exit, str] | None = None
        self._stopped_by: signal.Signals | None = None
        self._unread = b""

    def run(self, work: Callable[[], int]) -> Exit:
        """Run `work` in a child process until it ends or this process is asked to stop.

        Parameters
        ----------
        work
            Returns an exit code. It must not return to its caller's stack: the child ends with it.

        Returns
        -------
        Exit
            How it ended. On anything but `Exit.DONE` the last line printed says what was wrong.
        """
        # one pipe for both streams, since the order of two is not kept on the way through Docker's log
        sys.stdout.flush()
        os.dup2(sys.stdout.fileno(), sys.stderr.fileno())
        kills_before = _out_of_memory_kills()
        reader, writer = os.pipe()
        wake_reader, wake_writer = os.pipe()
        os.set_blocking(wake_writer, False)
        # handlers first: a SIGTERM between here and the fork must not be lost
        signal.set_wakeup_fd(wake_writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        child = os.fork()
        if child == 0:
            os.close(reader)
            _become_the_operation(work, writer)
        # done by both sides, so that the group exists whoever runs first
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        os.close(writer)
        os.set_blocking(reader, False)
        status = self._watch(child, reader, wake_reader)
        # helpers an operation left behind (workers of a search) end with it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        self._listen(reader)
        for part in self._parts:
            with contextlib.suppress(OSError):
                part.unlink()
        exit_code, message = self._verdict(status, killed_for_memory=_out_of_memory_kills() > kills_before)
        if exit_code is not Exit.DONE:
            _print(f"FAILED ({exit_code:d}, {exit_code.meaning}): {' '.join(message.split())}")
        return exit_code

    def _stop(self, number: int, _frame: object) -> None:
        self._stopped_by = signal.Signals(number)

    def _watch(self, child: int, reader: int, wake_reader: int) -> int:
        """Wait for the child's end, speaking for it when it is silent; return its wait status."""
        notice_ends = float("inf")
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            if self._stopped_by is not None and notice_ends == float("inf"):
                # a search listens, and delivers the best it has found; all others end at once, whatever they do
                os.kill(child, signal.SIGTERM)
                notice_ends = time.monotonic() + _NOTICE
            if time.monotonic() >= notice_ends:
                # outputs are whole or absent whenever an operation is cut off
                os.killpg(child, signal.SIGKILL)
                return os.waitpid(child, 0)[1]
            silence = time.monotonic() - self._last_sign
            if silence >= self._heartbeat:
                _print(f"… still {self._doing} ({duration(time.monotonic() - self._doing_since)} so far)")
                self._last_sign, silence = time.monotonic(), 0.0
            patience = min(self._heartbeat - silence, max(notice_ends - time.monotonic(), 0))
            ready, _, _ = select.select([reader, wake_reader], [], [], patience)
            if wake_reader in ready:
                os.read(wake_reader, 4_096)
            if reader in ready and not self._listen(reader):
                # the child closed its end and is about to end itself; SIGCHLD will tell
                select.select([wake_reader], [], [], 0.1)

    def _listen(self, reader: int) -> bool:
        """Take in what the operation has announced; return False when it will announce nothing more."""
        while True:
            try:
                block = os.read(reader, 65_536)
            except BlockingIOError:
                return True
            if not block:
                return False
            *lines, self._unread = (self._unread + block).split(b"\n")
            for line in lines:
                self._heed(json.loads(line))

    def _heed(self, message: dict[str, Any]) -> None:
        self._last_sign = time.monotonic()
        if "doing" in message:
            self._doing, self._doing_since = message["doing"], time.monotonic()
        elif "part" in message:
            self._parts.add(Path(message["part"]))
        elif "gone" in message:
            self._parts.discard(Path(message["gone"]))
        elif "failed" in message:
            self._failure = Exit(message["failed"]), message["message"]

    def _verdict(self, status: int, *, killed_for_memory: bool) -> tuple[Exit, str]:
        """Judge a child's wait status and what it announced before."""
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == Exit.DONE:
            return Exit.DONE, ""
        if self._stopped_by is not None and self._failure is None:
            message = (
                f"stopped by {self._stopped_by.name} while {self._doing}. Nothing was left half-written; run it again."
            )
            return Exit.TRY_AGAIN, message
        doing = f"while {self._doing}"
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        bug = self._failure is None or self._failure[0] is Exit.BUG
        if bug and (killed_for_memory or killed):
            sure = "the system ended it" if killed_for_memory else "something killed it, most likely the system"
            return Exit.NOT_ENOUGH_MEMORY, f"{sure} {doing}: {memory_advice(self._memory_limit)}."
        if self._failure is not None:
            return self._failure
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return Exit.BUG, f"a library crashed with {name} {doing}. Run it again; should it recur, report it."
        return Exit.BUG, f"it ended with code {os.WEXITSTATUS(status)} {doing}, without a word. Please report it."


def _become_the_operation(work: Callable[[], int], writer: int) -> None:
    """Be the child: run the work and end at once, without the shutdown in which native libraries like to hang."""
    code = int(Exit.BUG)
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # a group of its own, so that it can be stopped together with the helpers it starts
        os.setpgid(0, 0)
        pulse.connect(writer)
        code = work()
        sys.stdout.flush()
    finally:
        os._exit(code)


def _out_of_memory_kills() -> int:
    for counter in _OUT_OF_MEMORY_COUNTERS:
        with contextlib.suppress(OSError, ValueError):
            for line in counter.read_text(encoding="ascii").splitlines():
                name, _, value = line.partition(" ")
                if name == "oom_kill":
                    return int(value)
    return 0


def _print(line: str) -> None:
    # a log nobody reads any more is no reason to change how the operation ends
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)
