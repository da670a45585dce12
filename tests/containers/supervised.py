"""Runs the next attempt of a task as a worker does: ``python -m tests.containers.supervised RUN TASK``.

The process is Airflow's supervisor of the attempt, with the API server in it; the task has a separate process. At the
end it prints the state of the task.
"""

from __future__ import annotations

import sys

from airflow.api_fastapi.common.dagbag import dag_bag_from_app
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.models.dagbag import DBDagBag
from airflow.models.taskinstance import TaskInstance
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.supervisor import in_process_api_server, supervise_task
from airflow.utils.session import create_session
from airflow.utils.state import TaskInstanceState

from tests.containers.attempts import DAG_ID


def instance_of(run: str, task: str) -> TaskInstance:
    """Return Airflow's record of a task of a run."""
    with create_session() as session:
        found: TaskInstance = session.query(TaskInstance).filter_by(dag_id=DAG_ID, run_id=run, task_id=task).one()
        session.expunge(found)
        return found


def main(run: str, task: str) -> None:
    """Run the attempt."""
    with create_session() as session:
        instance = session.merge(instance_of(run, task))
        instance.state = TaskInstanceState.QUEUED
        if not instance.try_number:
            instance.try_number = 1
    api = in_process_api_server()
    api.app.dependency_overrides[dag_bag_from_app] = DBDagBag
    client = Client(base_url=None, token="", dry_run=True, transport=api.transport)
    client.base_url = "http://in-process.invalid./"
    supervise_task(
        ti=TaskInstanceDTO.model_validate(instance_of(run, task), from_attributes=True),  # type: ignore[arg-type]
        bundle_info=BundleInfo(name="dags-folder", version=None),
        dag_rel_path="numerai_tournament.py",
        token="",
        client=client,
        subprocess_logs_to_stdout=True,
    )
    print(f"{task} is {instance_of(run, task).state}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
