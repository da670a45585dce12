"""Airflow on this machine: its environment, its ports, its start and its end.

``airflow standalone`` with everything it writes under ``.airflow``; what it is set to is all in
:func:`airflow_environment`.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import practice_season
from launcher.errors import LauncherError
from launcher.processes import end_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from launcher.checkout import Checkout
    from launcher.processes import ServiceRecord, Services

SERVICE = "airflow"
DAG_ID = "numerai_tournament"
BUNDLE = "numerai"
HOST = "127.0.0.1"
USER = "admin"
# where the pipeline looks for the keys of the practice season's account, in Airflow's words
PRACTICE_CONNECTION = "AIRFLOW_CONN_NUMERAI_PRACTICE"
START_SECONDS = 240.0
STOP_SECONDS = 7.0
# No port at all: the log servers would listen on every interface, and nobody on one machine needs them.
NO_LOG_SERVER = "-1"


def cores() -> int:
    """Processor cores this process may use, which is how many slots the models' pool has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        # as Airflow's own server does: a connection of a server that just ended must not make the port look taken
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with contextlib.suppress(OSError):
            listener.bind((HOST, port))
            return True
    return False


def choose_port(wanted: int, but_not: Collection[int] = ()) -> int:
    """Give the port that is wanted, or the next one that nobody listens on.

    Raises
    ------
    LauncherError
        When the next hundred are all taken.
    """
    for port in range(wanted, min(wanted + 100, 65536)):
        if port not in but_not and is_free(port):
            return port
    msg = f"no free port from {wanted} on"
    raise LauncherError(msg, "Choose another start with PORT=…")


def any_free_port() -> int:
    """Give a port that nobody listens on."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind((HOST, 0))
        return int(listener.getsockname()[1])


def airflow_environment(checkout: Checkout, *, port: int, practice_url: str | None, scheduled: bool) -> dict[str, str]:
    """Everything Airflow is told, as environment variables.

    Parameters
    ----------
    checkout
        The checkout that is its bundle.
    port
        Port of its web page.
    practice_url
        Address of the practice season, if one runs.
    scheduled
        Whether the schedule that was asked for holds; one run must not get a scheduled one beside it.
    """
    address = f"http://{HOST}:{port}"
    bundle = {
        "name": BUNDLE,
        "classpath": "airflow.dag_processing.bundles.local.LocalDagBundle",
        "kwargs": {"path": str(checkout.dags), "refresh_interval": 30},
    }
    settings = {
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__LOAD_EXAMPLES": "False",
        "CORE__DAGS_FOLDER": str(checkout.dags),
        "CORE__PLUGINS_FOLDER": str(checkout.plugins),
        "CORE__PARALLELISM": str(cores() + 2),
        "CORE__DAGS_ARE_PAUSED_AT_CREATION": "False",
        "CORE__EXECUTION_API_SERVER_URL": f"{address}/execution/",
        # on a busy machine another process may hold the file for longer than SQLite's own five seconds
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{checkout.airflow_home}/airflow.db?timeout=60",
        "DATABASE__SQL_ALCHEMY_CONNECT_ARGS": "numerai_pipeline.sqlite_savepoints.CONNECT_ARGS",
        "DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST": json.dumps([bundle]),
        "DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "60",
        # a task hears that it was marked or cleared within two seconds, and outlives an API server that is away
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "2",
        "WORKERS__MAX_FAILED_HEARTBEATS": "30",
        # a scheduler that comes back takes what the last one left half-done in hand at once
        "SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
        "API__HOST": HOST,
        "API__PORT": str(port),
        "API__BASE_URL": address,
        "API__WORKERS": "1",
        "LOGGING__WORKER_LOG_SERVER_PORT": NO_LOG_SERVER,
        "LOGGING__TRIGGER_LOG_SERVER_PORT": NO_LOG_SERVER,
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    environment = {f"AIRFLOW__{name}": value for name, value in settings.items()}
    environment |= {
        "AIRFLOW_HOME": str(checkout.airflow_home),
        "NUMERAI_DATA_DIR": str(checkout.data),
        # Airflow starts its parts by the name `airflow`
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",
        # whatever it is set to: every task's process reads the plugins, and would compile them anew
        "PYTHONDONTWRITEBYTECODE": "",
        "NO_COLOR": "1",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
    }
    if practice_url is not None:
        environment["NUMERAI_PRACTICE_URL"] = practice_url
        environment[PRACTICE_CONNECTION] = os.environ.get(PRACTICE_CONNECTION) or json.dumps(
            {"conn_type": "generic", "login": practice_season.PUBLIC_ID, "password": practice_season.KEY}
        )
    environment["NUMERAI_SCHEDULE"] = schedule() if scheduled else "off"
    # likewise: a run of housekeeping that nobody asked for
    environment["NUMERAI_HOUSEKEEPING"] = (os.environ.get("NUMERAI_HOUSEKEEPING") if scheduled else None) or "false"
    return environment


def schedule() -> str:
    """Give the schedule that was asked for by NUMERAI_SCHEDULE.

    Off otherwise: Airflow would start last week's live round at once, which nobody expects of a first look.
    """
    return os.environ.get("NUMERAI_SCHEDULE") or "off"


def log_file(checkout: Checkout) -> Path:
    """Where everything Airflow says goes."""
    return checkout.airflow_home / "standalone.log"


def password_file(checkout: Checkout) -> Path:
    """Where Airflow keeps the password it made up."""
    return checkout.airflow_home / "simple_auth_manager_passwords.json.generated"


def start(services: Services, checkout: Checkout, environment: dict[str, str], owner: str) -> ServiceRecord:
    """Start Airflow; it takes half a minute until it is healthy (see `airflow_api.wait_until_healthy`)."""
    checkout.airflow_home.mkdir(parents=True, exist_ok=True)
    checkout.data.mkdir(parents=True, exist_ok=True)
    return services.start(
        SERVICE,
        [Path(sys.executable).parent / "airflow", "standalone"],
        owner=owner,
        log=log_file(checkout),
        env=environment,
        cwd=checkout.root,
    )


def ended_early(checkout: Checkout) -> LauncherError:
    """Say that Airflow is gone though nobody stopped it."""
    log = log_file(checkout)
    tail = end_of(log.read_text(errors="replace"), 20) if log.exists() else ""
    return LauncherError("Airflow ended unexpectedly", tail, f"The full log: {log}")
