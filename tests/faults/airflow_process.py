"""A separate Airflow for the suite: API server, DAG processor and scheduler as services that can be killed."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psutil

from launcher import local_airflow
from launcher.airflow_api import AirflowApi
from launcher.paths import ROOT, ProjectPaths
from launcher.processes import session_members, wait_until

DAG = local_airflow.DAG_ID
PARTS = {"api-server": ("api-server",), "dag-processor": ("dag-processor",), "scheduler": ("scheduler",)}
TIMEOUT_SECONDS = 240.0
# of one slot, so that one container fills it
POOL = "faults"
# Short, since by default Airflow notices the death of a process after minutes.
SHORT_INTERVALS = {
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "10",
    "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "2",
    "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "3",
    "SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "8",
    "SCHEDULER__SCHEDULER_HEARTBEAT_SEC": "2",
    "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
    "SCHEDULER__JOB_HEARTBEAT_SEC": "2",
    "CORE__PARALLELISM": "4",
    "DAG_PROCESSOR__PARSING_PROCESSES": "1",
    "DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "300",
    "LOGGING__LOGGING_LEVEL": "INFO",
}
POLICY = '''
import os
import time
from datetime import timedelta
from pathlib import Path


def task_policy(task):
    """Retry without a delay, so that the suite is fast."""
    task.retry_delay = timedelta(seconds=1)
    task.retry_exponential_backoff = 0
    if task.dag_id != "stock":
        task.retries = 40
    if task.task_id in HELD:
        task._pre_execute_hook = hold_before_start


def hold_before_start(context):
    """Hold a task before it starts for as long as a file exists."""
    hold = Path(os.environ["AIRFLOW_HOME"], "hold", context["ti"].task_id)
    while hold.exists():
        time.sleep(0.1)
'''
# short tasks, which can be held before they start
HELD = ("wait_for_round", "leaderboard", "exploring")


class AirflowProcess:
    """An Airflow with all its files in one folder.

    Parameters
    ----------
    folder : Path
        The folder.
    settings : dict
        Environment variables of all its processes, beyond those of `make up`.
    dag_file : Path, optional
        A DAG file that replaces the pipeline's and the stock operator's, and may import them.
    """

    def __init__(self, folder: Path, settings: dict[str, str], dag_file: Path | None = None) -> None:
        for name in ("dags", "plugins"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        (folder / "dags" / "numerai_housekeeping.py").unlink()
        shutil.copy(Path(__file__).parent / "stock_dag.py", folder / "dags")
        if dag_file is not None:
            (folder / "dags" / ".airflowignore").write_text("numerai_tournament.py\nstock_dag.py\n")
            shutil.copy(dag_file, folder / "dags")
        self.checkout = ProjectPaths(folder)
        self.data = folder / "data"
        self.data.mkdir()
        (self.checkout.airflow_home / "config").mkdir(parents=True)
        settings_of_airflow = self.checkout.airflow_home / "config" / "airflow_local_settings.py"
        settings_of_airflow.write_text(f"{POLICY}\n\nHELD = {HELD!r}\n")
        port = local_airflow.any_free_port()
        configured = local_airflow.airflow_environment(self.checkout, port=port, practice_url=None, scheduled=False)
        inherited = {
            name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS|NUMERAI_|AIRFLOW", name)
        }
        short = {f"AIRFLOW__{name}": value for name, value in SHORT_INTERVALS.items()}
        own = {"NUMERAI_DATA_DIR": str(self.data), "NUMERAI_POOL": POOL}
        self.environment = inherited | configured | short | own | settings
        self.environment["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS"] = f"{local_airflow.USER}:admin"
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.api = AirflowApi(
            f"http://{local_airflow.HOST}:{port}", local_airflow.USER, local_airflow.password_file(self.checkout)
        )

    def start(self) -> None:
        """Start all services and wait until they are healthy and the DAGs are parsed."""
        program = Path(sys.executable).with_name("airflow")
        with (self.checkout.airflow_home / "migrate.log").open("ab") as log:
            subprocess.run([program, "db", "migrate"], env=self.environment, check=True, stdout=log, stderr=log)
        for part in PARTS:
            self.start_part(part)
        self.wait_until_healthy()
        self.api.ensure_pool(POOL, 1, "One container at a time.")
        known = wait_until(lambda: all(map(self.api.dag, (DAG, "stock"))), TIMEOUT_SECONDS, every=0.5)
        assert known, self.api.import_errors()

    def start_part(self, part: str) -> None:
        """Start a service as a service manager would, in a separate session."""
        with (self.checkout.airflow_home / f"{part}.log").open("ab") as log:
            self._running[part] = subprocess.Popen(
                [Path(sys.executable).with_name("airflow"), *PARTS[part]],
                stdout=log,
                stderr=log,
                env=self.environment,
                cwd=self.checkout.root,
                start_new_session=True,
            )

    def wait_until_healthy(self) -> None:
        """Wait until every service reports that it is healthy."""

        def alive() -> bool:
            return all(part.poll() is None for part in self._running.values())

        assert self.api.wait_until_healthy(alive, TIMEOUT_SECONDS), {
            part: (self.checkout.airflow_home / f"{part}.log").read_text(errors="replace")[-2000:] for part in PARTS
        }

    def end_part(self, part: str, number: signal.Signals, *, alone: bool = False, all_at_once: bool = False) -> None:
        """Send a signal to a service and wait for its end: with its children, as a service manager does, or alone.

        With ``all_at_once``, SIGTERM goes to its children as well, as systemd sends it.
        """
        process = self._running.pop(part)
        members = [] if alone else session_members(process.pid)
        if number == signal.SIGTERM:
            process.terminate()
            for member in members if all_at_once else []:
                with contextlib.suppress(psutil.Error):
                    member.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=20)
        for member in members:
            with contextlib.suppress(psutil.Error):
                member.kill()
        if process.poll() is None:
            process.kill()
        process.wait(timeout=20)

    def end(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all services."""
        for part in list(self._running):
            self.end_part(part, signal.SIGKILL if part != "scheduler" else number)

    def trigger(self, dag: str, run: str, conf: dict[str, Any]) -> None:
        """Start a run."""
        self.api.trigger(dag, run, conf)

    def instance(self, dag: str, run: str, task: str) -> dict[str, Any]:
        """Airflow's record of a task of a run."""
        return next(each for each in self.api.task_instances(dag, run) if each["task_id"] == task)

    def wait_for(self, condition: Callable[[], bool], what: str, timeout: float = TIMEOUT_SECONDS) -> float:
        """Wait for a condition; return the seconds until it held."""
        began = time.monotonic()
        assert wait_until(condition, timeout, every=0.25), f"{what}: not within {timeout:.0f} s"
        return time.monotonic() - began

    def process_of(self, dag: str, run: str, task: str) -> psutil.Process:
        """The process of a running task; fails if there is none."""
        found: list[psutil.Process] = []

        def has_process() -> bool:
            instance = self.instance(dag, run, task)
            assert instance["state"] not in ("success", "failed"), f"{task} is over"
            if instance["state"] != "running" or not instance.get("pid"):
                return False
            with contextlib.suppress(psutil.Error):
                found[:] = [psutil.Process(instance["pid"])]
            return bool(found)

        self.wait_for(has_process, f"{task} runs")
        return found[0]

    @contextlib.contextmanager
    def held(self, tasks: Iterable[str]) -> Iterator[Callable[[str], None]]:
        """Hold tasks of `HELD` before they start; gives a function that releases one."""
        holds = {task: self.checkout.airflow_home / "hold" / task for task in HELD if task in tasks}
        for hold in holds.values():
            hold.parent.mkdir(exist_ok=True)
            hold.touch()

        def release(task: str) -> None:
            if task in holds:
                holds[task].unlink(missing_ok=True)

        try:
            yield release
        finally:
            for task in holds:
                release(task)

    def wait_for_task(self, dag: str, run: str, task: str) -> None:
        """Wait until a task has succeeded."""
        self.wait_for(lambda: self.instance(dag, run, task)["state"] == "success", f"{task} succeeds")

    def wait_for_run(self, dag: str, run: str) -> str:
        """Wait for the end of a run and return its state."""
        self.wait_for(lambda: self.api.run_state(dag, run) in ("success", "failed"), f"{run} is over")
        return self.api.run_state(dag, run)

    def mark_failed(self, dag: str, run: str, task: str) -> None:
        """Mark a task as failed, as the web UI does."""
        path = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances/{task}"
        self.api._request("PATCH", path, json={"new_state": "failed"})

    def clear(self, dag: str, run: str, task: str) -> None:
        """Clear a task, as the web UI does."""
        body = {"dry_run": False, "dag_run_id": run, "task_ids": [task], "only_failed": False}
        self.api._request("POST", f"/api/v2/dags/{dag}/clearTaskInstances", json=body)

    def shift_start_date(self, dag: str, run: str, days: int) -> None:
        """Let a run exceed its time limit: move its start in Airflow's database back by some days."""
        database = sqlite3.connect(self.checkout.airflow_home / "airflow.db", timeout=60)
        with contextlib.closing(database), database:
            changed = database.execute(
                "UPDATE dag_run SET start_date = datetime(start_date, ?) WHERE dag_id = ? AND run_id = ?",
                (f"-{days} days", dag, run),
            )
            assert changed.rowcount == 1

    def log_lines(self, dag: str, run: str, task: str, attempt: int) -> list[str]:
        """The log lines of one attempt of a task."""
        return [str(line["event"]) for line in self.api.log_events(dag, run, task, attempt)]

    def stray_processes(self) -> list[str]:
        """Command lines of processes of this Airflow that belong to no running service, and of running tasks."""
        sessions = {process.pid for process in self._running.values()}
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            with contextlib.suppress(psutil.Error, ProcessLookupError):
                if process.info["status"] == psutil.STATUS_ZOMBIE:
                    continue
                if process.environ().get("AIRFLOW_HOME") != str(self.checkout.airflow_home):
                    continue
                command = " ".join(process.info["cmdline"] or ())
                if os.getsid(process.pid) not in sessions or "task runner" in command:
                    found.append(f"{process.pid} {command}")
        return found
