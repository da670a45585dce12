"""A run whose start fails ends at once, while a container of another run has the only slot of the pool."""

from __future__ import annotations

import pytest

from tests.faults.airflow_process import DAG
from tests.faults.results_table import Row, Table
from tests.faults.scenario import FaultEnvironment, silenced, wait_for_lines

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(600)]

TASK = "tsne"
FIRST, SECOND = "has-the-pool", "fails-at-its-start"


def test_failed_start_ends_its_run_while_another_run_has_the_pool(environment: FaultEnvironment, table: Table) -> None:
    airflow = environment.airflow
    environment.reset_data()
    airflow.trigger(DAG, FIRST, environment.conf())
    wait_for_lines(environment, FIRST, TASK)
    (container,) = environment.monitor.running(FIRST, TASK)
    with silenced(environment, container):
        airflow.trigger(DAG, SECOND, environment.conf() | {"archive": "/missing.zip"})
        assert airflow.wait_for_run(DAG, SECOND) == "failed"
        assert airflow.instance(DAG, FIRST, TASK)["state"] == "running"
    assert airflow.instance(DAG, SECOND, "download")["state"] == "failed"
    states = {each["task_id"]: each["state"] for each in airflow.api.task_instances(DAG, SECOND)}
    assert states[TASK] == states["tpot"] == states["evaluate"] == "upstream_failed"
    assert airflow.wait_for_run(DAG, FIRST) == "success"
    environment.wait_until_clean()
    name = "the start of a run fails while another run has the whole pool"
    table.add(Row(name, "download", "PythonOperator", "failed, without waiting for a slot", 0.0, "nothing"))
