"""The same container as a model's, started by the stock DockerOperator as in its documentation."""

from __future__ import annotations

import os
from datetime import timedelta

from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import DAG
from docker.types import Mount


def stock_task(task_id: str, ids: str, ticks: str, predicting: str, **more: str) -> DockerOperator:
    """Make a task of the stock operator whose container does the same as the stub model's, with further variables."""
    return DockerOperator(
        task_id=task_id,
        image=os.environ["FAULTS_IMAGE"],
        auto_remove="force",
        mount_tmp_dir=False,
        network_mode="none",
        labels={"stock": "stock"},
        execution_timeout=timedelta(seconds=60),
        mounts=[Mount("/data", os.environ["FAULTS_STOCK_DATA"], type="bind")],
        environment={
            "OPERATION": "stock",
            "SEED": "{{ run_id }}",
            "IDS": ids,
            "TICKS": ticks,
            "PREDICTING": predicting,
            **more,
        },
    )


with DAG(
    dag_id="stock",
    schedule=None,
    catchup=False,
    params={"folder": "", "ticks": "40"},
    default_args={"retries": 3, "retry_delay": timedelta(seconds=1)},
) as dag:
    stock_task("stock", "n0,n1", "{{ params.ticks }}", "/data/{{ run_id }}.csv")
