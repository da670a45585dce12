"""The faults, the stages of a run at which they are injected, and the checks of a run afterwards."""

from __future__ import annotations

import contextlib
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import docker.errors

from launcher.processes import wait_until
from tests.faults.airflow_process import DAG, AirflowProcess
from tests.faults.container_monitor import ContainerMonitor
from tests.faults.download_server import DownloadServer
from tests.faults.engine import EngineProcess

# one after the other, so that a fault can be injected in the middle of each
TASKS = {"tsne": "a preprocessing task", "tpot": "a model", "evaluate": "a post-processing task"}
LONG_STAGES = ("download", "unzip", *TASKS)
STAGES = ("wait_for_round", *LONG_STAGES, "leaderboard", "exploring")
LATER_PHASES = {"tpot: fit finished": "loading ", "tpot: predicting": "predicting "}
"""Stages of a model's container after its fit → the lines of its log; the stage ``tpot`` itself is its fit."""
MIN_LINES = 4
SEED = 5


@dataclass
class FaultEnvironment:
    """All processes of a scenario."""

    airflow: AirflowProcess
    engine: EngineProcess
    server: DownloadServer
    monitor: ContainerMonitor

    def conf(self) -> dict[str, object]:
        """The parameters of a run."""
        return {"source": "archive", "archive": self.server.address, "seed": SEED}

    def reset_data(self) -> None:
        """Remove the files of earlier runs, so that no task is up to date."""
        for name in ("rounds", "downloads", "datasets", "results", "work"):
            shutil.rmtree(self.airflow.data / name, ignore_errors=True)

    def run_directory(self) -> Path:
        """The directory of the only run."""
        (found,) = self.airflow.data.glob("rounds/*/*")
        return found

    def results(self) -> dict[str, bytes]:
        """The outputs of a run's containers: path → content."""
        directory = self.run_directory()
        names = ("predictions/tpot.csv", "validation/tpot.csv", "tsne/map.txt", "scores.txt")
        places = [directory / name for name in names]
        return {str(path.relative_to(directory)): path.read_bytes() for path in places}

    def leftovers(self) -> list[str]:
        """List containers, processes and temporary files that should not exist after a run."""
        containers = [f"container {each['Id'][:12]} ({each['State']})" for each in self.engine.containers()]
        files = [*self.airflow.data.rglob("*.part"), *self.airflow.data.glob("work/*/*/")]
        return [*containers, *self.airflow.stray_processes(), *(f"file {path}" for path in files)]

    def wait_until_clean(self, timeout: float = 20) -> None:
        """Wait until there are no leftovers of a run."""
        assert wait_until(lambda: not self.leftovers(), timeout, every=0.25), self.leftovers()


Inject = Callable[[FaultEnvironment, str, str, str], None]


@dataclass(frozen=True)
class Fault:
    """A fault.

    Attributes
    ----------
    name : str
        Its description.
    inject : callable
        Injects it into a task of a run, and restarts services as a service manager would; receives environment, DAG,
        run and task.
    live_restore : bool
        Whether containers keep running while the engine is stopped.
    containers : int or None
        Number of containers of the task, if it is certain.
    uses_retry : bool
        Whether a task with a container may use one of its retries.
    """

    name: str
    inject: Inject = field(repr=False)
    live_restore: bool = False
    containers: int | None = None
    uses_retry: bool = True


def task_of(stage: str) -> str:
    """Return the task of a stage."""
    return stage.partition(":")[0]


def _to_task(number: signal.Signals) -> Inject:
    def inject(environment: FaultEnvironment, dag: str, run: str, task: str) -> None:
        environment.airflow.process_of(dag, run, task).send_signal(number)

    return inject


def _to_supervisor(number: signal.Signals) -> Inject:
    def inject(environment: FaultEnvironment, dag: str, run: str, task: str) -> None:
        supervisor = environment.airflow.process_of(dag, run, task).parent()
        assert supervisor is not None
        supervisor.send_signal(number)

    return inject


def _to_scheduler(number: signal.Signals) -> Inject:
    def inject(environment: FaultEnvironment, _dag: str, _run: str, _task: str) -> None:
        environment.airflow.end_part("scheduler", number)
        environment.airflow.start_part("scheduler")

    return inject


def _stop_as_systemd(environment: FaultEnvironment, _dag: str, _run: str, _task: str) -> None:
    environment.airflow.end_part("scheduler", signal.SIGTERM, all_at_once=True)
    environment.airflow.start_part("scheduler")


def _to_airflow(environment: FaultEnvironment, _dag: str, _run: str, _task: str) -> None:
    environment.airflow.end(signal.SIGKILL)
    for part in ("api-server", "dag-processor", "scheduler"):
        environment.airflow.start_part(part)
    environment.airflow.wait_until_healthy()


def _to_engine(number: signal.Signals, stopped_seconds: float = 0.0) -> Inject:
    def inject(environment: FaultEnvironment, _dag: str, _run: str, _task: str) -> None:
        environment.engine.end(number)
        time.sleep(stopped_seconds)  # the fault itself: the time without an engine
        environment.engine.start()

    return inject


def _hang_engine(environment: FaultEnvironment, _dag: str, _run: str, _task: str) -> None:
    environment.engine.pause()
    time.sleep(15)  # the fault itself: the engine accepts calls and does not answer
    environment.engine.resume()


TASK_KILLED = Fault("the task's process is killed (SIGKILL)", _to_task(signal.SIGKILL), containers=1)
TASK_TERMINATED = Fault(
    "the task's process is terminated (SIGTERM)", _to_task(signal.SIGTERM), containers=1, uses_retry=False
)
SUPERVISOR_KILLED = Fault("its supervisor is killed (SIGKILL)", _to_supervisor(signal.SIGKILL), containers=1)
SUPERVISOR_TERMINATED = Fault(
    "its supervisor is terminated (SIGTERM)", _to_supervisor(signal.SIGTERM), containers=1, uses_retry=False
)
SCHEDULER_KILLED = Fault("the scheduler's service is killed (SIGKILL)", _to_scheduler(signal.SIGKILL), containers=1)
SCHEDULER_STOPPED = Fault("the scheduler's service is stopped (SIGTERM)", _to_scheduler(signal.SIGTERM), containers=1)
SCHEDULER_STOPPED_BY_SYSTEMD = Fault(
    "the scheduler's service is stopped (SIGTERM to each of its processes)", _stop_as_systemd, containers=1
)
AIRFLOW_KILLED = Fault("the whole Airflow is killed (SIGKILL)", _to_airflow, containers=1)
ENGINE_RESTARTED = Fault("the Docker engine is restarted", _to_engine(signal.SIGTERM), containers=2)
ENGINE_KILLED = Fault("the Docker engine is killed (SIGKILL)", _to_engine(signal.SIGKILL), containers=2)
ENGINE_RESTARTED_LIVE = Fault(
    "the Docker engine is restarted, with live-restore", _to_engine(signal.SIGTERM), live_restore=True, containers=1
)
ENGINE_KILLED_LIVE = Fault(
    "the Docker engine is killed (SIGKILL), with live-restore",
    _to_engine(signal.SIGKILL),
    live_restore=True,
    containers=1,
)
ENGINE_STOPPED = Fault(
    "the Docker engine is stopped for 60 s, with live-restore",
    _to_engine(signal.SIGTERM, 60),
    live_restore=True,
    containers=1,
)
ENGINE_HANGS = Fault("the Docker engine hangs for 15 s", _hang_engine, containers=1)
FAULTS = (
    TASK_KILLED,
    TASK_TERMINATED,
    SUPERVISOR_KILLED,
    SUPERVISOR_TERMINATED,
    SCHEDULER_KILLED,
    SCHEDULER_STOPPED,
    SCHEDULER_STOPPED_BY_SYSTEMD,
    AIRFLOW_KILLED,
    ENGINE_RESTARTED,
    ENGINE_KILLED,
    ENGINE_RESTARTED_LIVE,
    ENGINE_KILLED_LIVE,
    ENGINE_STOPPED,
    ENGINE_HANGS,
)


def wait_until_halfway(environment: FaultEnvironment, run: str, stage: str) -> None:
    """Wait until a stage of a run is in the middle of its work."""
    task = task_of(stage)
    if stage == "download":
        assert environment.server.halfway.wait(timeout=120)
    elif task in TASKS:
        wait_for_lines(environment, run, task, phase=LATER_PHASES.get(stage, ""))
    else:
        environment.airflow.process_of(DAG, run, stage)
    # Airflow must also have recorded that it runs
    environment.airflow.wait_for(
        lambda: environment.airflow.instance(DAG, run, task)["state"] == "running", f"{stage} runs"
    )


def wait_for_lines(environment: FaultEnvironment, run: str, task: str, dag: str = DAG, phase: str = "") -> None:
    """Wait until a task's container has logged some lines of a phase."""
    labelled = "stock" if dag == "stock" else run
    line = f"{task} {phase}0".encode()

    def has_lines() -> bool:
        assert environment.airflow.instance(dag, run, task)["state"] not in ("success", "failed"), f"{task} is over"
        with contextlib.closing(environment.engine.client) as client, contextlib.suppress(docker.errors.APIError):
            return any(
                client.api.logs(container).count(line) >= MIN_LINES
                for container in environment.monitor.running(labelled, task)
            )
        return False

    environment.airflow.wait_for(has_lines, f"{task} is in the middle of its work")


@contextlib.contextmanager
def silenced(environment: FaultEnvironment, container: str) -> Iterator[None]:
    """Keep a container from logging anything during the block."""
    with contextlib.closing(environment.engine.client) as client:
        client.api.pause(container)
        try:
            yield
        finally:
            with contextlib.suppress(docker.errors.APIError):  # it was removed
                client.api.unpause(container)


@contextlib.contextmanager
def paused_download(environment: FaultEnvironment, stages: tuple[str, ...]) -> Iterator[None]:
    """Pause the download halfway if a fault is injected there."""
    if "download" in stages:
        environment.server.pause_halfway()
    try:
        yield
    finally:
        environment.server.resume()


def seconds_of(environment: FaultEnvironment, dag: str, run: str, task: str) -> tuple[datetime, datetime]:
    """Start and end of a task's latest attempt."""
    found = environment.airflow.instance(dag, run, task)
    return datetime.fromisoformat(found["start_date"]), datetime.fromisoformat(found["end_date"])


def start_of(environment: FaultEnvironment, dag: str, run: str, task: str) -> datetime:
    """Start of a task's latest attempt."""
    return datetime.fromisoformat(environment.airflow.instance(dag, run, task)["start_date"])
