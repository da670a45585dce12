"""The supervisor: the small parent process of an operation.

An operation spends its time inside native code, which neither handles signals nor, where it holds Python's lock (as
Intel's SVM does for a whole fit), lets another thread run. So the operation runs in a child process. The parent imports
nothing heavy and does the time-critical work: it prints the current step when the operation prints nothing, stops the
operation within moments of SIGTERM, distinguishes a lack of memory from a bug, removes incomplete files, and prints the
last line.
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

from numerai_contract import heartbeat
from numerai_contract.exits import Exit, memory_advice
from numerai_contract.progress import duration

if TYPE_CHECKING:
    from collections.abc import Callable

# the kernel's count of processes it killed for lack of memory: cgroup v2, then v1
_OUT_OF_MEMORY_COUNTERS = (
    Path("/sys/fs/cgroup/memory.events"),
    Path("/sys/fs/cgroup/memory/memory.oom_control"),
)

# seconds that an operation has to deliver its results after SIGTERM, if it handles the signal
_STOP_GRACE_SECONDS = 2.0


class Supervisor:
    """Runs an operation in a child process and supervises it.

    Parameters
    ----------
    heartbeat_seconds
        Seconds without output after which the supervisor prints the operation's current step.
    memory_limit
        The container's memory in MiB, for the message when it was not enough; None when unknown.
    """

    def __init__(self, heartbeat_seconds: float, memory_limit: int | None = None) -> None:
        self._heartbeat_seconds = heartbeat_seconds
        self._memory_limit = memory_limit
        self._step = "starting"
        self._step_began = self._last_activity = time.monotonic()
        self._temporary_files: set[Path] = set()
        self._failure: tuple[Exit, str] | None = None
        self._stopped_by: signal.Signals | None = None
        self._unread = b""

    def run(self, work: Callable[[], int]) -> Exit:
        """Run `work` in a child process until it ends or this process receives a stop signal.

        Parameters
        ----------
        work
            Returns an exit code. It must not return to its caller's stack: the child ends with it.

        Returns
        -------
        Exit
            The exit code. Unless it is `Exit.DONE`, the last line printed describes the failure.
        """
        # one pipe for both streams, since Docker's log does not keep the order of two
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
            _run_child(work, writer)
        # done by both processes, so that the group exists whichever runs first
        with contextlib.suppress(OSError):
            os.setpgid(child, child)
        os.close(writer)
        os.set_blocking(reader, False)
        status = self._wait_for_child(child, reader, wake_reader)
        # processes that the operation started (workers of a search) end with it
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child, signal.SIGKILL)
        self._read_messages(reader)
        for path in self._temporary_files:
            with contextlib.suppress(OSError):
                path.unlink()
        exit_code, message = self._exit_reason(status, killed_for_memory=_out_of_memory_kills() > kills_before)
        if exit_code is not Exit.DONE:
            _print(f"FAILED ({exit_code:d}, {exit_code.meaning}): {' '.join(message.split())}")
        return exit_code

    def _stop(self, number: int, _frame: object) -> None:
        self._stopped_by = signal.Signals(number)

    def _wait_for_child(self, child: int, reader: int, wake_reader: int) -> int:
        """Wait for the child's end, printing its step when it prints nothing; return its wait status."""
        grace_ends = float("inf")
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return status
            if self._stopped_by is not None and grace_ends == float("inf"):
                # a search handles the signal and delivers its best result; every other operation ends at once
                os.kill(child, signal.SIGTERM)
                grace_ends = time.monotonic() + _STOP_GRACE_SECONDS
            if time.monotonic() >= grace_ends:
                # outputs are whole or absent whenever an operation is cut off
                os.killpg(child, signal.SIGKILL)
                return os.waitpid(child, 0)[1]
            inactive = time.monotonic() - self._last_activity
            if inactive >= self._heartbeat_seconds:
                _print(f"… still {self._step} ({duration(time.monotonic() - self._step_began)} so far)")
                self._last_activity, inactive = time.monotonic(), 0.0
            timeout = min(self._heartbeat_seconds - inactive, max(grace_ends - time.monotonic(), 0))
            ready, _, _ = select.select([reader, wake_reader], [], [], timeout)
            if wake_reader in ready:
                os.read(wake_reader, 4_096)
            if reader in ready and not self._read_messages(reader):
                # the child closed its end and is about to exit: wait for SIGCHLD
                select.select([wake_reader], [], [], 0.1)

    def _read_messages(self, reader: int) -> bool:
        """Handle the operation's messages; return False when there will be no more."""
        while True:
            try:
                block = os.read(reader, 65_536)
            except BlockingIOError:
                return True
            if not block:
                return False
            *lines, self._unread = (self._unread + block).split(b"\n")
            for line in lines:
                self._handle_message(json.loads(line))

    def _handle_message(self, message: dict[str, Any]) -> None:
        self._last_activity = time.monotonic()
        if "step" in message:
            self._step, self._step_began = message["step"], time.monotonic()
        elif "temporary" in message:
            self._temporary_files.add(Path(message["temporary"]))
        elif "removed" in message:
            self._temporary_files.discard(Path(message["removed"]))
        elif "failed" in message:
            self._failure = Exit(message["failed"]), message["message"]

    def _exit_reason(self, status: int, *, killed_for_memory: bool) -> tuple[Exit, str]:
        """Determine exit code and message from a child's wait status and the failure it reported before."""
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == Exit.DONE:
            return Exit.DONE, ""
        if self._stopped_by is not None and self._failure is None:
            stopped = f"stopped by {self._stopped_by.name} while {self._step}"
            return Exit.TRY_AGAIN, f"{stopped}. No incomplete output remains; run it again."
        during = f"while {self._step}"
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        bug = self._failure is None or self._failure[0] is Exit.BUG
        if bug and (killed_for_memory or killed):
            cause = "the system killed it" if killed_for_memory else "it was killed, most likely by the system,"
            return Exit.NOT_ENOUGH_MEMORY, f"{cause} {during}: {memory_advice(self._memory_limit)}."
        if self._failure is not None:
            return self._failure
        if os.WIFSIGNALED(status):
            name = signal.Signals(os.WTERMSIG(status)).name
            return Exit.BUG, f"a library crashed with {name} {during}. Run it again; if it recurs, report it."
        code = os.WEXITSTATUS(status)
        return Exit.BUG, f"exited with code {code} {during}, without an error message. Please report this."


def _run_child(work: Callable[[], int], writer: int) -> None:
    """Run the work in the child process and exit at once, without a shutdown, in which native libraries may hang."""
    code = int(Exit.BUG)
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        # a new process group, so that the operation can be stopped together with the processes it starts
        os.setpgid(0, 0)
        heartbeat.connect(writer)
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
    # a log without a reader must not change the exit code
    with contextlib.suppress(BrokenPipeError):
        print(line, flush=True)
