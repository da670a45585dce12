"""What can go wrong, at which stage of a run, and what a run has to look like afterwards."""

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

from tests.faults.airflow_rig import DAG, OwnAirflow
from tests.faults.download_server import DownloadServer
from tests.faults.engine import OwnEngine
from tests.faults.watch import Watch

# one after the other, so that each can be struck in the middle of its work
TASKS = {"tsne": "a preparation", "tpot": "a model", "evaluate": "what comes after the models"}
LONG_STAGES = ("download", "unzip", *TASKS)
STAGES = ("wait_for_round", *LONG_STAGES, "leaderboard", "exploring")
LINES_BEFORE = 4
SEED = 5


@dataclass
class House:
    """All that a scenario plays in."""

    airflow: OwnAirflow
    engine: OwnEngine
    server: DownloadServer
    watch: Watch

    def conf(self) -> dict[str, object]:
        """What a run is triggered with."""
        return {"source": "archive", "archive": self.server.address, "seed": SEED}

    def forget(self) -> None:
        """Remove what earlier runs left on the data volume, so that nothing is up to date."""
        for name in ("rounds", "downloads"):
            shutil.rmtree(self.airflow.data / name, ignore_errors=True)

    def run_directory(self) -> Path:
        """The one run's directory."""
        (found,) = self.airflow.data.glob("rounds/*/*")
        return found

    def results(self) -> dict[str, bytes]:
        """Everything that a run's containers left: path → content."""
        directory = self.run_directory()
        places = [*directory.glob("predictions/[!.]*.csv"), directory / "tsne/map.txt", directory / "scores.txt"]
        return {str(path.relative_to(directory)): path.read_bytes() for path in places}

    def left_behind(self) -> list[str]:
        """Name containers, processes and temporary files that nobody should find any more."""
        containers = [f"container {each['Id'][:12]} ({each['State']})" for each in self.engine.containers()]
        files = [path for path in self.airflow.data.rglob("*") if path.name.endswith(".part") or path.name == ".work"]
        return [*containers, *self.airflow.stray_processes(), *(f"file {path.name}" for path in files)]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong.

    Attributes
    ----------
    name : str
        What, in words.
    strike : callable
        Lets it happen to a task of a run and repairs what a service manager would; gets house, DAG, run, task.
    live_restore : bool
        Whether the engine leaves its containers running when it ends.
    containers : int or None
        How many containers the struck task may take, where that is certain.
    """

    name: str
    strike: Callable[[House, str, str, str], None] = field(repr=False)
    live_restore: bool = False
    containers: int | None = None


def _to_task(number: signal.Signals) -> Callable[[House, str, str, str], None]:
    def strike(house: House, dag: str, run: str, task: str) -> None:
        house.airflow.process_of(dag, run, task).send_signal(number)

    return strike


def _to_supervisor(number: signal.Signals) -> Callable[[House, str, str, str], None]:
    def strike(house: House, dag: str, run: str, task: str) -> None:
        supervisor = house.airflow.process_of(dag, run, task).parent()
        assert supervisor is not None
        supervisor.send_signal(number)

    return strike


def _to_scheduler(number: signal.Signals) -> Callable[[House, str, str, str], None]:
    def strike(house: House, _dag: str, _run: str, _task: str) -> None:
        house.airflow.end_part("scheduler", number)
        house.airflow.start_part("scheduler")

    return strike


def _to_airflow(house: House, _dag: str, _run: str, _task: str) -> None:
    house.airflow.end(signal.SIGKILL)
    for part in ("api-server", "dag-processor", "scheduler"):
        house.airflow.start_part(part)
    house.airflow.wait_until_healthy()


def _to_engine(number: signal.Signals, away: float = 0.0) -> Callable[[House, str, str, str], None]:
    def strike(house: House, _dag: str, _run: str, _task: str) -> None:
        house.engine.end(number)
        time.sleep(away)  # the fault itself: so long there is no engine
        house.engine.start()

    return strike


def _hang_engine(house: House, _dag: str, _run: str, _task: str) -> None:
    house.engine.pause()
    time.sleep(15)  # the fault itself: so long it takes calls and answers none
    house.engine.go_on()


TASK_KILLED = Fault("the task's process is killed (SIGKILL)", _to_task(signal.SIGKILL), containers=1)
TASK_ENDED = Fault("the task's process is told to end (SIGTERM)", _to_task(signal.SIGTERM), containers=2)
SUPERVISOR_KILLED = Fault("its supervisor is killed (SIGKILL)", _to_supervisor(signal.SIGKILL), containers=1)
SUPERVISOR_ENDED = Fault("its supervisor is told to end (SIGTERM)", _to_supervisor(signal.SIGTERM), containers=2)
SCHEDULER_KILLED = Fault("the scheduler's service is killed (SIGKILL)", _to_scheduler(signal.SIGKILL), containers=1)
SCHEDULER_ENDED = Fault("the scheduler's service is stopped (SIGTERM)", _to_scheduler(signal.SIGTERM))
AIRFLOW_KILLED = Fault("the whole Airflow is killed (SIGKILL)", _to_airflow, containers=1)
ENGINE_ENDED = Fault("the Docker engine is restarted", _to_engine(signal.SIGTERM), containers=2)
ENGINE_KILLED = Fault("the Docker engine is killed (SIGKILL)", _to_engine(signal.SIGKILL), containers=2)
ENGINE_ENDED_LIVE = Fault(
    "the Docker engine is restarted, with live-restore", _to_engine(signal.SIGTERM), live_restore=True, containers=1
)
ENGINE_KILLED_LIVE = Fault(
    "the Docker engine is killed (SIGKILL), with live-restore",
    _to_engine(signal.SIGKILL),
    live_restore=True,
    containers=1,
)
ENGINE_AWAY = Fault(
    "the Docker engine is away for 60 s, with live-restore",
    _to_engine(signal.SIGTERM, 60),
    live_restore=True,
    containers=1,
)
ENGINE_HANGS = Fault("the Docker engine hangs for 15 s", _hang_engine, containers=1)
FAULTS = (
    TASK_KILLED,
    TASK_ENDED,
    SUPERVISOR_KILLED,
    SUPERVISOR_ENDED,
    SCHEDULER_KILLED,
    SCHEDULER_ENDED,
    AIRFLOW_KILLED,
    ENGINE_ENDED,
    ENGINE_KILLED,
    ENGINE_ENDED_LIVE,
    ENGINE_KILLED_LIVE,
    ENGINE_AWAY,
    ENGINE_HANGS,
)


def wait_for_middle(house: House, run: str, stage: str) -> None:
    """Wait until a stage of a run is in the middle of its work."""
    if stage == "download":
        assert house.server.halfway.wait(timeout=120)
    elif stage in TASKS:
        wait_for_lines(house, run, stage)
    else:
        house.airflow.process_of(DAG, run, stage)
    # Airflow, too, must know that it works
    house.airflow.wait_for(lambda: house.airflow.instance(DAG, run, stage)["state"] == "running", f"{stage} works")


def wait_for_lines(house: House, run: str, task: str, dag: str = DAG) -> None:
    """Wait until a task's container has said something."""
    labelled = "stock" if dag == "stock" else run

    def has_spoken() -> bool:
        assert house.airflow.instance(dag, run, task)["state"] not in ("success", "failed"), f"{task} is over"
        with contextlib.closing(house.engine.client) as client, contextlib.suppress(docker.errors.APIError):
            return any(
                client.api.logs(container).count(b"\n") >= LINES_BEFORE
                for container in house.watch.running(labelled, task)
            )
        return False

    house.airflow.wait_for(has_spoken, f"{task} is in the middle of its work")


@contextlib.contextmanager
def held_download(house: House, stages: tuple[str, ...]) -> Iterator[None]:
    """Let the download wait in its middle where it is to be struck there."""
    if "download" in stages:
        house.server.stop_halfway()
    try:
        yield
    finally:
        house.server.go_on()


def seconds_of(house: House, dag: str, run: str, task: str) -> tuple[datetime, datetime]:
    """When a task's latest try began and ended."""
    found = house.airflow.instance(dag, run, task)
    return datetime.fromisoformat(found["start_date"]), datetime.fromisoformat(found["end_date"])


def start_of(house: House, dag: str, run: str, task: str) -> datetime:
    """When a task's latest try began."""
    return datetime.fromisoformat(house.airflow.instance(dag, run, task)["start_date"])
