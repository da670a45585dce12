"""Workers: results, messages, limits, and their end together with their child processes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from numerai_contract.exits import ModelFailureError
from numerai_contract.workers import Limits, Outcome, Worker

Start = Callable[..., Worker]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start workers and end them after the test."""
    workers: list[Worker] = []

    def start_worker(work: Callable[[Callable[[Any], None]], Any], **options: Any) -> Worker:
        workers.append(Worker(work, **options))
        return workers[-1]

    yield start_worker
    for worker in workers:
        worker.end()


def _outcome(worker: Worker) -> Outcome:
    deadline = time.monotonic() + 20
    while (outcome := worker.poll()) is None:
        assert time.monotonic() < deadline
        worker.wait(0.2)
    return outcome


def _runs(pid: int) -> bool:
    try:
        # a process that has ended stays in the table until its parent waits for it
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _wait_for_end(pid: int) -> None:
    deadline = time.monotonic() + 10
    while _runs(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_worker_finished_work_returns_its_value(start: Start) -> None:
    outcome = _outcome(start(lambda _send: {"sum": np.arange(4).sum()}))
    assert (outcome.status, outcome.value, outcome.reason) == ("succeeded", {"sum": 6}, "")
    assert outcome.seconds > 0


def test_worker_messages_arrive_in_order_and_before_the_outcome(start: Start) -> None:
    def work(send: Callable[[Any], None]) -> None:
        for number in range(100):
            send({"number": number})

    worker = start(work)
    assert _outcome(worker).status == "succeeded"
    assert worker.messages() == [{"number": number} for number in range(100)]
    assert worker.messages() == []


def test_worker_messages_waits_for_the_next_one(start: Start) -> None:
    def work(send: Callable[[Any], None]) -> None:
        send("first")
        time.sleep(600)

    worker = start(work)
    assert worker.messages(timeout=20) == ["first"]
    assert worker.poll() is None


def _crash(_send: object) -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)  # Airflow's DAG importer sets a handler in the process of the tests
    os.kill(os.getpid(), signal.SIGSEGV)


def _fail(_send: object) -> None:
    raise ModelFailureError("the learner failed\nand more")


def _exhaust_memory(_send: object) -> int:
    return len([np.ones(8 << 20) for _ in range(64)])


@pytest.mark.parametrize(
    ("work", "status", "reason"),
    [
        (_fail, "crashed", "the learner failed"),
        (lambda _send: int("text"), "crashed", "invalid literal for int() with base 10"),
        (lambda _send: os._exit(3), "crashed", "it exited without an error message"),
        (_crash, "crashed", "a library crashed with SIGSEGV"),
        (
            lambda _send: os.kill(os.getpid(), signal.SIGABRT),
            "out_of_memory",
            "a library aborted",
        ),
        (
            lambda _send: os.kill(os.getpid(), signal.SIGKILL),
            "out_of_memory",
            "it was killed",
        ),
        (lambda _send: time.sleep(600), "timed_out", "it took more than 1 s"),
        (_exhaust_memory, "out_of_memory", "the memory was not enough"),
    ],
)
def test_worker_failure_has_status_and_reason(start: Start, work: Any, status: str, reason: str) -> None:
    worker = start(work, limits=Limits(seconds=1 if status == "timed_out" else 60, memory=256))
    outcome = _outcome(worker)
    assert outcome.status == status
    assert outcome.reason.startswith(reason)
    assert "\n" not in outcome.reason
    assert outcome.value is None
    assert worker.poll() is outcome


def test_worker_seed_sets_the_global_generators(start: Start) -> None:
    def work(_send: object) -> tuple[float, float]:
        return random.random(), float(np.random.random())

    values = [_outcome(start(work, seed=seed)).value for seed in (1, 1, 2)]
    assert values[0] == values[1] != values[2]


def test_worker_with_log_writes_output_and_temporary_files_beside_it(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "search.log"

    def work(_send: object) -> str:
        os.write(1, b"from the library\n")
        os.write(2, b"native error\n")
        return os.environ["TMPDIR"]

    assert _outcome(start(work, log=log)).value == str(tmp_path)
    assert log.read_text().splitlines() == ["from the library", "native error"]


def test_worker_silent_exit_reason_quotes_the_log(start: Start, tmp_path: Path) -> None:
    def work(_send: object) -> None:
        os.write(2, b"first line\nlast line\n")
        os._exit(1)

    outcome = _outcome(start(work, log=tmp_path / "search.log"))
    assert outcome.reason == "it exited without an error message; the last line of its log: last line"


def test_worker_niceness_is_applied(start: Start) -> None:
    before = os.nice(0)
    assert _outcome(start(lambda _send: os.nice(0), limits=Limits(niceness=3))).value == before + 3


def test_worker_ended_kills_its_child_processes(start: Start) -> None:
    def work(send: Callable[[Any], None]) -> None:
        child = subprocess.Popen(["sleep", "600"])
        send(child.pid)
        child.wait()

    worker = start(work)
    (child,) = worker.messages(timeout=20)
    worker.end()
    _wait_for_end(child)
    assert worker.poll() is None


PARENT = """
import os, sys, time
from numerai_contract.workers import Worker

def work(send):
    send(os.getpid())
    time.sleep(600)

worker = Worker(work)
print(worker.messages(timeout=20)[0], flush=True)
time.sleep(600)
"""


def test_worker_of_a_killed_operation_ends() -> None:
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "PATH": os.environ["PATH"]}
    with subprocess.Popen([sys.executable, "-c", PARENT], env=environment, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        assert _runs(worker)
        parent.kill()
    _wait_for_end(worker)
