"""Removes the secrets of Airflow's components from the environment of a task's process.

With the LocalExecutor a task is a child of the scheduler, and would pass the scheduler's environment on to all of its
libraries and programs. Airflow replaces the address of the database in a task's process; this listener, which Airflow
calls before the process reads the DAG file, removes the other secrets. A task needs none of them: it has a token for
Airflow's execution API, which gives it connections decrypted.

This prevents that a secret is passed on by mistake. It does not keep a hostile program with the scheduler's user from
reading the scheduler's memory: tasks of workers (``docs/deployment/server.md``) are in containers that never had the
secrets.
"""

from __future__ import annotations

import os
from typing import Any

from airflow.listeners import hookimpl

SECRETS = (
    "AIRFLOW__CORE__FERNET_KEY",
    "AIRFLOW__API__SECRET_KEY",
    "AIRFLOW__API_AUTH__JWT_SECRET",
    "AIRFLOW__CELERY__BROKER_URL",
    "AIRFLOW__CELERY__RESULT_BACKEND",
)
"""The variables of ``docker-compose.yaml`` that only components of Airflow need."""


@hookimpl
def on_starting(component: Any) -> None:
    """Remove the secrets when a task's process starts; Airflow calls it for its components, too, which keep them."""
    from airflow.sdk.execution_time.task_runner import TaskRunnerMarker

    if isinstance(component, TaskRunnerMarker):
        for name in SECRETS:
            os.environ.pop(name, None)
