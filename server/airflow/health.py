"""Checks one component of Airflow for the health checks: ``python -m server.airflow.health scheduler``.

Airflow's own ``airflow jobs check`` imports all of Airflow, which takes seconds for every check of every component.
This module queries HTTP endpoints instead: the API server's, the scheduler's health server, and for the others their
heartbeats at the API server.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import urllib.request

API_SERVER = "http://api-server:8080/api/v2/monitor/health"
OWN_API_SERVER = "http://127.0.0.1:8080/api/v2/monitor/health"
SCHEDULER = "http://127.0.0.1:8974/health"
TIMEOUT_SECONDS = 8
# component → the key of its entry in the API server's response
ENTRIES = {"api-server": "metadatabase", "dag-processor": "dag_processor", "triggerer": "triggerer"}


def fetch(address: str) -> bytes:
    """Read an address without a proxy; an error status raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=TIMEOUT_SECONDS) as response:
        return bytes(response.read())


def problem_with(component: str) -> str | None:
    """Give the problem of a component; None if it is healthy."""
    if component == "worker":
        return _worker_problem()
    try:
        if component == "scheduler":
            # the response has a status and no content
            fetch(SCHEDULER)
            return None
        address = OWN_API_SERVER if component == "api-server" else API_SERVER
        entry = json.loads(fetch(address))[ENTRIES[component]]
    except (OSError, ValueError, LookupError) as error:
        return f"{component}: no valid response ({error})"
    return None if entry.get("status") == "healthy" else f"{component}: {entry}"


def _worker_problem() -> str | None:
    # through the broker, like its tasks; only Celery is imported, not Airflow
    from celery import Celery

    name = f"celery@{socket.gethostname()}"
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    return None if app.control.ping(destination=[name], timeout=TIMEOUT_SECONDS) else f"{name} is unreachable"


def main() -> int:
    """Check the component of the command line; returns the exit code."""
    found = problem_with(sys.argv[1])
    print(found or "healthy")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
