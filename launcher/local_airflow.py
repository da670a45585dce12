"""Airflow on this machine: its environment, its ports, its start and its end.

``airflow standalone``, with all its files under ``.airflow``; all its settings are in :func:`airflow_environment`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from launcher import simulator
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import tail
from numerai_pipeline.core.settings import machine_cores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.paths import ProjectPaths
    from launcher.processes import ServiceRecord, Services

SERVICE = "airflow"
DAG_ID = "numerai_tournament"
# as in numerai_pipeline.dag.deployment, which imports Airflow
DEPLOYMENT = "numerai_deployment"
HOST = "127.0.0.1"
USER = "admin"
# the Airflow connection with the keys of the simulator's account, as an environment variable
PRACTICE_CONNECTION = "AIRFLOW_CONN_NUMERAI_PRACTICE"
START_SECONDS = 240.0
STOP_SECONDS = 7.0
FURTHER_TASKS = 8
"""Tasks that may run beside those of the models' pool."""


def is_free(port: int) -> bool:
    """Whether a port of this machine is free."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # as Airflow's server does: connections of a server that just ended must not make the port seem taken
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return True
    return False


def choose_port(wanted: int) -> int:
    """Give the wanted port, or the next free one of a hundred."""
    for port in range(wanted, min(wanted + 100, 65536)):
        if is_free(port):
            return port
    msg = f"PORT={wanted}: this port and the next 99 are taken"
    raise LauncherError(msg, "Choose a free one:  PORT=…", exit_code=EXIT_UNAVAILABLE)


def any_free_port() -> int:
    """Give a free port."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def airflow_environment(paths: ProjectPaths, *, port: int, practice_url: str | None, scheduled: bool) -> dict[str, str]:
    """Give all of Airflow's settings as environment variables.

    Parameters
    ----------
    paths
        The checkout, which is its DAG bundle.
    port
        Port of its web page.
    practice_url
        Address of the simulator, if one runs.
    scheduled
        Whether NUMERAI_SCHEDULE and NUMERAI_STABLES apply; `make run` must not get a scheduled run beside its own.
    """
    address = f"http://{HOST}:{port}"
    bundle = {
        "name": "numerai",
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(paths.dags), "refresh_interval": 30},
    }
    settings = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_FOLDER": str(paths.dags),
        "CORE__PLUGINS_FOLDER": str(paths.plugins),
        # models use at most the pool's slots, and the other tasks of a run must not wait for them
        "CORE__PARALLELISM": str(machine_cores() + FURTHER_TASKS),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        # on a busy machine another process may hold the file for longer than SQLite's own five seconds
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{paths.airflow_home}/airflow.db?timeout=60",
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "numerai_pipeline.dag.sqlite_savepoints.CONNECT_ARGS",
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        # a task detects within two seconds that it was marked or cleared, and survives an unreachable API server
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        "WORKERS__MAX_FAILED_HEARTBEATS": "30",
        # a restarted scheduler adopts the unfinished tasks of its predecessor soon
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        # the button *Test* of the connection form: only this machine's user reaches the page
        "CORE__TEST_CONNECTION": "Enabled",
        "API__HOST": HOST,
        "API__PORT": str(port),
        "API__BASE_URL": address,
        "API__WORKERS": "1",
        # none: the log servers would listen on every interface, and one machine does not need them
        "LOGGING__WORKER_LOG_SERVER_PORT": "-1",
        "LOGGING__TRIGGER_LOG_SERVER_PORT": "-1",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    environment = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    environment |= {
        "AIRFLOW_HOME": str(paths.airflow_home),
        # in place of the variable in the database, which the launcher could not read without Airflow
        f"AIRFLOW_VAR_{DEPLOYMENT.upper()}": _deployment_id(paths),
        "NUMERAI_DATA_DIR": str(paths.data),
        # Airflow starts its components by the name `airflow`
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # for the connection type Numerai (numerai_pipeline.dag.provider)
        "PYTHONPATH": os.pathsep.join(filter(None, (str(paths.plugins), os.environ.get("PYTHONPATH")))),
        # always unset: the process of every task imports the plugins, and would compile them each time
        "PYTHONDONTWRITEBYTECODE": "",
        "NO_COLOR": "1",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
    }
    if practice_url is not None:
        environment["NUMERAI_PRACTICE_URL"] = practice_url
        environment[PRACTICE_CONNECTION] = os.environ.get(PRACTICE_CONNECTION) or json.dumps(
            {"conn_type": "generic", "login": simulator.PUBLIC_ID, "password": simulator.KEY}
        )
    environment["NUMERAI_SCHEDULE"] = schedule() if scheduled else "off"
    if not scheduled:
        environment["NUMERAI_STABLES"] = ""
    # also off unless requested: scheduled housekeeping
    environment["NUMERAI_HOUSEKEEPING"] = (os.environ.get("NUMERAI_HOUSEKEEPING") if scheduled else None) or "false"
    return environment


def _deployment_id(paths: ProjectPaths) -> str:
    if not paths.deployment.exists():
        paths.airflow_home.mkdir(parents=True, exist_ok=True)
        paths.deployment.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="ascii")
    return paths.deployment.read_text(encoding="ascii").strip()


def schedule() -> str:
    """Give the schedule of NUMERAI_SCHEDULE.

    Off by default: Airflow would start last week's live round at once, which is unexpected at a first start.
    """
    return os.environ.get("NUMERAI_SCHEDULE") or "off"


def log_file(paths: ProjectPaths) -> Path:
    """File with the output of all of Airflow's components."""
    return paths.airflow_home / "standalone.log"


def password_file(paths: ProjectPaths) -> Path:
    """File with the password that Airflow generated."""
    return paths.airflow_home / "simple_auth_manager_passwords.json.generated"


def start(
    services: Services,
    paths: ProjectPaths,
    environment: dict[str, str],
    owner: str,
    details: Mapping[str, Any] | None = None,
) -> ServiceRecord:
    """Start Airflow, which becomes healthy within half a minute."""
    paths.airflow_home.mkdir(parents=True, exist_ok=True)
    paths.data.mkdir(parents=True, exist_ok=True)
    return services.start(
        SERVICE,
        [Path(sys.executable).parent / "airflow", "standalone"],
        owner=owner,
        log=log_file(paths),
        env=environment,
        cwd=paths.root,
        details=details,
    )


def ended_early(paths: ProjectPaths) -> LauncherError:
    """Make the error for an Airflow that ended unexpectedly."""
    log = log_file(paths)
    end = tail(log.read_text(errors="replace"), 20) if log.exists() else ""
    return LauncherError("Airflow ended unexpectedly", end, f"The full log: {log}")
