"""Worker processes of an operation: work with limits that can be ended at any moment.

A worker is a forked process: it shares the data and imports of the operation, costs next to nothing and starts at once.
A lack of memory or a crash in it does not end the operation.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from multiprocessing import Pipe, connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from numerai_contract.exits import NotEnoughMemoryError, to_contract_error

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PR_SET_PDEATHSIG = 1
_MAX_REASON_LENGTH = 400
_libc = ctypes.CDLL(None, use_errno=True)


class Outcome(NamedTuple):
    """The outcome of a worker.

    Attributes
    ----------
    status : str
        "succeeded", "timed_out", "out_of_memory" or "crashed".
    value : Any
        The return value of the work, if it succeeded.
    reason : str
        The reason of the failure otherwise.
    seconds : float
        The time it took.
    """

    status: str
    value: Any
    reason: str
    seconds: float


class Limits(NamedTuple):
    """The limits of a worker.

    Attributes
    ----------
    seconds : float
        The time it may take.
    memory : int or None
        MiB that it may allocate beside the memory it shares with the operation. With this limit the system also ends
        it before the operation when the container's memory runs out.
    niceness : int
        How far it yields to other processes, from 0 to 19.
    """

    seconds: float = math.inf
    memory: int | None = None
    niceness: int = 0


NO_LIMITS = Limits()


class Worker:
    """A forked process that calls one function.

    It leads a new process group and ends together with the processes it starts, and with the operation.

    Parameters
    ----------
    work
        Called in the new process with a function that sends a message to this one. Messages and the return value must
        be picklable.
    limits
        See `Limits`.
    seed
        Seed of numpy's and Python's global random numbers, for libraries that use those; None leaves them as they are.
    log
        File for its standard output and error; temporary files are created beside it. By default the output is
        discarded, since the operation's log has only the operation's own lines.
    """

    def __init__(
        self,
        work: Callable[[Callable[[Any], None]], Any],
        *,
        limits: Limits = NO_LIMITS,
        seed: int | None = None,
        log: Path | None = None,
    ) -> None:
        self._limits, self._log = limits, log
        self._messages: list[Any] = []
        self._result: tuple[str, Any, str] | None = None
        self._status: int | None = None
        self._outcome: Outcome | None = None
        self._reader, writer = Pipe(duplex=False)
        self._is_open = True
        self._began = time.monotonic()
        sys.stdout.flush()
        parent = os.getpid()
        self._process = os.fork()
        if self._process == 0:
            self._reader.close()
            _run_child(work, writer, limits, seed, log, parent)
        # done by both processes, so that the group exists whichever runs first
        with contextlib.suppress(OSError):
            os.setpgid(self._process, self._process)
        writer.close()

    def messages(self, timeout: float = 0) -> list[Any]:
        """Return the messages since the last call; wait up to `timeout` seconds for one."""
        if not self._messages:
            self.wait(timeout)
            self._receive()
        received, self._messages = self._messages, []
        return received

    def wait(self, timeout: float) -> None:
        """Wait until there is a message or an outcome, at most `timeout` seconds."""
        wait_for_any([self], timeout)

    def poll(self) -> Outcome | None:
        """Return the outcome; None while the worker is running, and after `end` without one.

        A worker that exceeds its time is ended.
        """
        if self._outcome is None and self._is_open:
            # before the messages are read: all messages of a process that has exited are in the pipe
            exited = self._has_exited()
            self._receive()
            spent = time.monotonic() - self._began
            if self._result is None and exited:
                self._result = self._exit_reason()
            elif self._result is None and spent >= self._limits.seconds:
                self._result = "timed_out", None, f"it took more than {self._limits.seconds:.0f} s"
            if self._result is not None:
                self.end()
                self._outcome = Outcome(*self._result, spent)
        return self._outcome

    def end(self) -> None:
        """Kill the worker and the processes it started."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process, signal.SIGKILL)
        if self._status is None:
            self._status = os.waitpid(self._process, 0)[1]
        if self._is_open:
            self._reader.close()
            self._is_open = False

    def _receive(self) -> None:
        with contextlib.suppress(EOFError, OSError):
            while self._is_open and self._result is None and self._reader.poll():
                is_result, content = self._reader.recv()
                if is_result:
                    self._result = content
                else:
                    self._messages.append(content)

    def _has_exited(self) -> bool:
        if self._status is None:
            ended, status = os.waitpid(self._process, os.WNOHANG)
            if ended:
                self._status = status
        return self._status is not None

    def _exit_reason(self) -> tuple[str, None, str]:
        """Describe the exit of a process that sent no result."""
        status = self._status or 0
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        if number == signal.SIGKILL:
            return "out_of_memory", None, "it was killed, most likely by the system for lack of memory"
        if number == signal.SIGABRT:
            return "out_of_memory", None, "a library aborted, most likely for lack of memory"
        if number:
            return "crashed", None, f"a library crashed with {signal.Signals(number).name}"
        reason = "it exited without an error message"
        if self._log is not None:
            last = self._log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            reason += f"; the last line of its log: {''.join(last) or 'none'}"
        return "crashed", None, reason


def wait_for_any(workers: Sequence[Worker], timeout: float) -> None:
    """Wait until one of the workers has a message or an outcome, at most `timeout` seconds."""
    readers = [worker._reader for worker in workers if worker._is_open]
    if readers:
        connection.wait(readers, timeout)


def _run_child(
    work: Callable[[Callable[[Any], None]], Any],
    writer: Any,
    limits: Limits,
    seed: int | None,
    log: Path | None,
    parent: int,
) -> None:
    code = 1
    try:
        os.setpgid(0, 0)
        # the operation may be killed before it can end its workers
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() == parent:
            _prepare(limits, seed, log)
            writer.send((True, _result_of(work, lambda message: writer.send((False, message)))))
            code = 0
    finally:
        # at once, without a shutdown, in which native libraries may hang
        os._exit(code)


def _prepare(limits: Limits, seed: int | None, log: Path | None) -> None:
    """Apply limits, seed and log to this process."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    os.nice(limits.niceness)
    if log is None:
        output = os.open(os.devnull, os.O_WRONLY)
    else:
        # temporary files that libraries do not remove are removed together with the log
        os.environ["TMPDIR"] = tempfile.tempdir = str(log.parent)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(output, 1)
    os.dup2(output, 2)
    if limits.memory is not None:
        with contextlib.suppress(OSError):
            # when the container's memory runs out, the system kills this process first
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        limit = _allocated_bytes() + (limits.memory << 20)
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    if seed is not None:
        random.seed(seed)
        np.random.seed(seed)  # the global generator, for libraries that draw from it
    warnings.simplefilter("ignore")


def _result_of(work: Callable[[Callable[[Any], None]], Any], send: Callable[[Any], None]) -> tuple[str, Any, str]:
    try:
        return "succeeded", work(send), ""
    # every failure must reach the operation as a sentence
    except BaseException as error:  # noqa: BLE001
        traceback.print_exc()
        known = to_contract_error(error)
        reason = str(known or error).strip() or type(error).__name__
        status = "out_of_memory" if isinstance(known, NotEnoughMemoryError) else "crashed"
        return status, None, reason.splitlines()[0][:_MAX_REASON_LENGTH]


def _allocated_bytes() -> int:
    """Return the memory that this process has allocated for itself."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmData")
