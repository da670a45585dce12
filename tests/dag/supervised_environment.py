"""Runs a task under Airflow's supervisor and prints its log: ``python -m tests.dag.supervised_environment DAGS``.

The folder has one DAG, ``environment``, with one task, ``show``; Airflow's home of the environment is empty.
"""

from __future__ import annotations

import sys
from datetime import UTC, datetime

from airflow.api_fastapi.common.dagbag import dag_bag_from_app
from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.executors.workloads.base import BundleInfo
from airflow.executors.workloads.task import TaskInstanceDTO
from airflow.models.dagbag import DBDagBag
from airflow.models.serialized_dag import SerializedDagModel
from airflow.sdk.api.client import Client
from airflow.sdk.execution_time.supervisor import in_process_api_server, supervise_task
from airflow.timetables.base import DataInterval
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from pendulum import instance


def main(dags: str) -> None:
    """Create a run, and run the attempt of its task."""
    initdb()
    now = instance(datetime.now(tz=UTC))
    with create_session() as session:
        DagBundlesManager().sync_bundles_to_db(session=session)  # type: ignore[no-untyped-call]
        session.commit()
        sync_bag_to_db(DagBag(dags, bundle_name="dags-folder"), "dags-folder", None, session=session)
        session.commit()
        dag = SerializedDagModel.get_dag("environment", session=session)
        assert dag is not None
        run = dag.create_dagrun(
            run_id="once",
            logical_date=now,
            data_interval=DataInterval(now, now),
            run_after=now,
            conf={},
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.TEST,
            state=DagRunState.RUNNING,
            session=session,
        )
        [ti] = run.get_task_instances(session=session)
        ti.state, ti.try_number = TaskInstanceState.QUEUED, 1
        session.commit()
        session.refresh(ti)
        task = TaskInstanceDTO.model_validate(ti, from_attributes=True)
    api = in_process_api_server()
    api.app.dependency_overrides[dag_bag_from_app] = DBDagBag
    client = Client(base_url=None, token="", dry_run=True, transport=api.transport)
    client.base_url = "http://in-process.invalid./"
    supervise_task(
        ti=task,  # type: ignore[arg-type]
        bundle_info=BundleInfo(name="dags-folder", version=None),
        dag_rel_path="environment.py",
        token="",
        client=client,
        subprocess_logs_to_stdout=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
