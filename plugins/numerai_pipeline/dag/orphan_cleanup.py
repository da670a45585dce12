"""Removes containers whose Airflow run or task is no longer active: at the start of every run and of every container.

The state of runs and tasks is a query to Airflow, by the running task.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import requests
from airflow.utils.state import State
from docker.errors import DockerException

from numerai_pipeline.containers import orphans
from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.containers.engine import NoConnectionError
from numerai_pipeline.containers.platforms import cleanup_backends
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.dag.deployment import deployment_id
from numerai_pipeline.dag.docker_connection import engine_client
from numerai_pipeline.storage.continuing_fits import may_continue
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.results import ResultStore

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from numerai_pipeline.containers.backend import FoundContainer
    from numerai_pipeline.core.settings import Settings

log = logging.getLogger(__name__)

_ACTIVE_RUN_STATES = ["queued", "running"]
_CLEARED_TASK_STATES = frozenset({"restarting", "None"})


def is_run_active(ti: RuntimeTaskInstanceProtocol, dag: str, run_id: str) -> bool:
    """Whether a run of Airflow is queued or running."""
    return ti.get_dr_count(dag_id=dag, run_ids=[run_id], states=_ACTIVE_RUN_STATES) > 0


def is_task_active(ti: RuntimeTaskInstanceProtocol) -> bool:
    """Whether Airflow runs the task of this process or will retry it: it was not marked, cleared or timed out."""
    return _task_state(ti, ti.dag_id, ti.run_id, ti.task_id) not in State.finished | _CLEARED_TASK_STATES


def _task_state(ti: RuntimeTaskInstanceProtocol, dag: str, run: str, task: str) -> str:
    states = ti.get_task_states(dag_id=dag, task_ids=[task], run_ids=[run])
    return str(states.get(run, {}).get(task))


def liveness_check(ti: RuntimeTaskInstanceProtocol, data_dir: Path) -> Callable[[FoundContainer], bool]:
    """Return a function that checks whether a container's result is claimed or, in Airflow, its task is active.

    A container is not active if its workspace is a later container's, as after the loss of a Celery worker with an
    engine of its own.

    Parameters
    ----------
    ti : RuntimeTaskInstanceProtocol
        The running task, whose connection to Airflow is used.
    data_dir : Path
        The data volume.
    """
    data = DataLayout(data_dir)
    store = ResultStore(data)

    def is_active(container: FoundContainer) -> bool:
        labels = container.labels
        if Workspace(data.work(labels.task, labels.key), {}).container not in (None, "", container.id):
            return False
        # another run may follow the container, as it needs the same result, or a later one will use its fit
        if store.is_claimed(labels.task, labels.key) or may_continue(data, labels.task, labels.key):
            return True
        return (
            is_run_active(ti, labels.dag, labels.run)
            and _task_state(ti, labels.dag, labels.run, labels.task) not in State.finished
        )

    return is_active


def remove_orphans(settings: Settings, ti: RuntimeTaskInstanceProtocol) -> int:
    """Remove this deployment's containers whose task is no longer active; return their number.

    An unreachable engine is a warning only: a task that needs the engine reports it.
    """
    if not (settings.data_dir / ".installation").exists():
        return 0  # a new deployment, which has had no container yet
    volume, deployment = installation_id(settings.data_dir), deployment_id(settings.data_dir)
    is_active = liveness_check(ti, settings.data_dir)
    try:
        with engine_client() as client:
            return orphans.remove_orphans(cleanup_backends(settings, lambda: client), volume, deployment, is_active)
    except (NoConnectionError, DockerException, requests.RequestException) as error:
        log.warning("Docker engine unreachable; skipping orphan cleanup: %s", error)
        return 0
