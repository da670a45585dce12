"""Runs the next attempt of tasks as a worker does: ``python -m tests.containers.supervised DAG RUN TASK …``.

The process is Airflow's supervisor of the attempts, with the API server in it; each task has a separate process. At its
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


def instance_of(run: str, task: str, dag: str = DAG_ID) -> TaskInstance:
    """Return Airflow's record of a task of a run."""
    with create_session() as session:
        found: TaskInstance = session.query(TaskInstance).filter_by(dag_id=dag, run_id=run, task_id=task).one()
        session.expunge(found)
        return found


def main(dag: str, run: str, *tasks: str) -> None:
    """Run the attempts one after the other; the DAG's file has the DAG's name."""
    api = in_process_api_server()
    api.app.dependency_overrides[dag_bag_from_app] = DBDagBag
    client = Client(base_url=None, token="", dry_run=True, transport=api.transport)
    client.base_url = "http://in-process.invalid./"
    for task in tasks:
        with create_session() as session:
            instance = session.merge(instance_of(run, task, dag))
            instance.state = TaskInstanceState.QUEUED
            if not instance.try_number:
                instance.try_number = 1
        supervise_task(
            ti=TaskInstanceDTO.model_validate(instance_of(run, task, dag), from_attributes=True),  # type: ignore[arg-type]
            bundle_info=BundleInfo(name="dags-folder", version=None),
            dag_rel_path=f"{dag}.py",
            token="",
            client=client,
            subprocess_logs_to_stdout=True,
        )
        print(f"{task} is {instance_of(run, task, dag).state}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
