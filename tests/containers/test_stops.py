"""An attempt under Airflow's real supervisor, with a silent container: it is stopped, or a user ends the task."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import psutil
import pytest
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState
from docker.models.containers import Container

from launcher.processes import wait_until
from tests.containers.attempts import DAG_ID, TIMEOUT_SECONDS
from tests.containers.conftest import Outcome, stub_registry
from tests.containers.supervised import instance_of
from tests.samples import ROOT

pytestmark = pytest.mark.containers

TASK = "svm"


class Supervised:
    """An attempt of a task of a run that Airflow's supervisor runs, in separate processes."""

    def __init__(self, run: str, log: Path) -> None:
        self._log, self._run = log, run
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.containers.supervised", DAG_ID, run, TASK],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={
                    **os.environ,
                    "PYTHONPATH": f"{ROOT}:{ROOT}/plugins",
                    "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
                },
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def mark_failed(self) -> None:
        """Mark the task as failed, as the web UI does."""
        with create_session() as session:
            session.merge(instance_of(self._run, TASK)).state = TaskInstanceState.FAILED

    def end(self) -> str:
        """Wait for the end of the attempt; return the state of the task in Airflow."""
        self.process.wait(timeout=TIMEOUT_SECONDS)
        return self.output.splitlines()[-1].removeprefix(f"{TASK} is ")


@pytest.fixture
def supervise(run_dag: Callable[..., Outcome], stub_images: Path, tmp_path: Path) -> Iterator[Callable[[], Supervised]]:
    """Start the next attempt of a task whose container waits for a file."""
    run = run_dag({TASK: {}}).tasks[TASK].run_id
    stub_registry(stub_images, tmp_path, {TASK: {"parameters": {"MODE": "wait at fit"}}})
    started: list[Supervised] = []

    def start() -> Supervised:
        started.append(Supervised(run, tmp_path / f"attempt-{len(started)}"))
        return started[-1]

    yield start
    for each in started:
        with contextlib.suppress(ProcessLookupError):
            each.process.kill()


@pytest.fixture
def containers(engine: docker.DockerClient, tmp_path: Path) -> Callable[[], list[Container]]:
    def found() -> list[Container]:
        label = f"numerai={(tmp_path / 'data' / '.installation').read_text().strip()}"
        return list(engine.containers.list(all=True, filters={"label": label}, ignore_removed=True))

    return found


def silenced_container(containers: Callable[[], list[Container]], attempt: Supervised) -> Container:
    """Wait until the container of an attempt works, and pause it."""
    assert wait_until(lambda: " waiting" in attempt.output, TIMEOUT_SECONDS, every=0.1), attempt.output
    (container,) = containers()
    container.pause()
    return container


def test_stopped_supervisor_leaves_the_container_to_the_next_attempt(
    supervise: Callable[[], Supervised], containers: Callable[[], list[Container]]
) -> None:
    stopped = supervise()
    container = silenced_container(containers, stopped)
    stopped.process.send_signal(signal.SIGTERM)
    assert stopped.end() == "up_for_reschedule", stopped.output
    assert [each.id for each in containers()] == [container.id]
    following = supervise()
    assert wait_until(lambda: "Reconnecting" in following.output, TIMEOUT_SECONDS, every=0.1), following.output
    container.unpause()
    container.exec_run(["touch", "/tmp/go"])  # noqa: S108 - a path of the container
    assert following.end() == "success", following.output
    assert "started container" not in following.output
    assert containers() == []


def test_killed_supervisor_ends_the_attempt_and_leaves_the_container(
    supervise: Callable[[], Supervised], containers: Callable[[], list[Container]]
) -> None:
    attempt = supervise()
    container = silenced_container(containers, attempt)
    tasks = psutil.Process(attempt.process.pid).children()
    assert tasks
    attempt.process.kill()
    _, alive = psutil.wait_procs(tasks, timeout=TIMEOUT_SECONDS)
    assert alive == []
    assert [each.id for each in containers()] == [container.id]
    container.remove(force=True)


def test_task_marked_failed_removes_its_silent_container(
    supervise: Callable[[], Supervised], containers: Callable[[], list[Container]]
) -> None:
    attempt = supervise()
    silenced_container(containers, attempt)
    attempt.mark_failed()
    assert attempt.end() == "failed", attempt.output
    assert "stopped on Airflow's request" in attempt.output
    assert containers() == []
