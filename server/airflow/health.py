"""Whether one part of Airflow is healthy: ``python -m server.airflow.health scheduler``, as the health checks ask it.

Airflow's own ``airflow jobs check`` imports all of Airflow, seconds of work that every check of every part would cost.
This asks what the parts say over HTTP: the API server for itself, the scheduler by its health server, the others by
their heartbeats as the API server knows them.
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
ANSWER_SECONDS = 8
# part → the key of its entry in what the API server answers
ENTRIES = {"api-server": "metadatabase", "dag-processor": "dag_processor", "triggerer": "triggerer"}


def ask(address: str) -> bytes:
    """Read an address of a neighbour, by no proxy; an answer of an error raises OSError."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(address, timeout=ANSWER_SECONDS) as answer:
        return bytes(answer.read())


def trouble(part: str) -> str | None:
    """Say what is wrong with a part; None when nothing is."""
    if part == "worker":
        return _trouble_of_worker()
    try:
        if part == "scheduler":
            # it answers with a status and no content
            ask(SCHEDULER)
            return None
        address = OWN_API_SERVER if part == "api-server" else API_SERVER
        entry = json.loads(ask(address))[ENTRIES[part]]
    except (OSError, ValueError, LookupError) as error:
        return f"{part}: no good answer ({error})"
    return None if entry.get("status") == "healthy" else f"{part}: {entry}"


def _trouble_of_worker() -> str | None:
    # through the broker, as work comes to it; Celery alone is imported, not Airflow
    from celery import Celery

    name = f"celery@{socket.gethostname()}"
    app = Celery(broker=os.environ["AIRFLOW__CELERY__BROKER_URL"])
    return None if app.control.ping(destination=[name], timeout=ANSWER_SECONDS) else f"{name} does not answer"


def main() -> int:
    """Check the part that is named on the command line; returns the exit code."""
    found = trouble(sys.argv[1])
    print(found or "healthy")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
