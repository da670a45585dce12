"""Processes of an operation's own: work that can be cut off at any moment and whose lack of memory ends nothing else.

TPOT's own way, dask's workers, can only ask a fit to end: one within native code goes on and blocks its worker.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import resource
import signal
import time
import warnings
from multiprocessing import connection
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from threadpoolctl import threadpool_limits

from numerai_contract.exits import NotEnoughMemoryError, understood

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

# forked ones share what was read and imported; they cost next to nothing and start at once
_FORK = multiprocessing.get_context("fork")
_LONGEST_QUOTE = 300


class Outcome(NamedTuple):
    """What became of a worker.

    Attributes
    ----------
    status : str
        "succeeded", "timed_out", "out_of_memory" or "crashed".
    value : Any
        What the work returned, when it succeeded.
    words : str
        Why it did not, otherwise.
    seconds : float
        How long it took.
    """

    status: str
    value: Any
    words: str
    seconds: float


class Worker:
    """A forked process that does one thing, on one core.

    Parameters
    ----------
    work
        Called in the new process; what it returns must be picklable.
    seconds
        How long it may take.
    memory
        MiB it may take beside what it shares with this process.
    seed
        Of numpy's and Python's global random numbers, for learners that use those.
    """

    def __init__(self, work: Callable[[], Any], *, seconds: float, memory: int, seed: int) -> None:
        self._began = time.monotonic()
        self._ends = self._began + seconds
        self.reader, writer = _FORK.Pipe(duplex=False)
        self._process = _FORK.Process(target=_be_the_worker, args=(work, writer, memory, seed), daemon=True)
        self._process.start()
        writer.close()

    def outcome(self) -> Outcome | None:
        """Tell what became of it; None while it is at work. Its time being up is an outcome."""
        spent = time.monotonic() - self._began
        if self.reader.poll():
            try:
                status, value, words = self.reader.recv()
            except (EOFError, OSError):
                self._process.join()
                status, value, words = _how_it_died(self._process.exitcode)
        elif time.monotonic() >= self._ends:
            status, value, words = "timed_out", None, f"it took more than {self._ends - self._began:.0f} s"
        else:
            return None
        self.end()
        return Outcome(status, value, words, spent)

    def end(self) -> None:
        """End it now, whatever it does."""
        self._process.kill()
        self._process.join()
        self.reader.close()


def wait_for_any(workers: Sequence[Worker], patience: float) -> None:
    """Wait until one of them has something to tell, or for `patience` seconds."""
    connection.wait([worker.reader for worker in workers], patience)


def _be_the_worker(work: Callable[[], Any], writer: connection.Connection, memory: int, seed: int) -> None:
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        with contextlib.suppress(OSError):
            # should the container's memory run out, this one goes first, and the search goes on
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        resource.setrlimit(resource.RLIMIT_DATA, (limit := _data() + (memory << 20), limit))
        random.seed(seed)
        np.random.seed(seed)  # learners without a seed of their own draw from it
        warnings.simplefilter("ignore")
        with threadpool_limits(1):
            try:
                writer.send(("succeeded", work(), ""))
            # whatever went wrong must reach the parent as a sentence
            except BaseException as error:  # noqa: BLE001
                writer.send(_how_it_failed(error))
    finally:
        # at once, without the shutdown in which native libraries like to hang
        os._exit(0)


def _data() -> int:
    """Look up how much memory of its own this process has asked for, in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) << 10
    raise OSError("/proc/self/status has no VmData")


def _how_it_failed(error: BaseException) -> tuple[str, None, str]:
    known = understood(error)
    said = str(known or error).strip() or type(error).__name__
    status = "out_of_memory" if isinstance(known, NotEnoughMemoryError) else "crashed"
    return status, None, said.splitlines()[0][:_LONGEST_QUOTE]


def _how_it_died(exit_code: int | None) -> tuple[str, None, str]:
    if exit_code == -signal.SIGKILL:
        return "out_of_memory", None, "something killed it, most likely the system for lack of memory"
    if exit_code == -signal.SIGABRT:
        return "out_of_memory", None, "a library gave up, most likely for lack of memory"
    if exit_code is not None and exit_code < 0:
        return "crashed", None, f"a library crashed with {signal.Signals(-exit_code).name}"
    return "crashed", None, "it ended without a word"
