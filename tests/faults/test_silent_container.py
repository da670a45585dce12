"""An attempt that ends while its container logs nothing: it leaves the container to the next one at once."""

from __future__ import annotations

import re

import pytest

from tests.faults.airflow_process import DAG
from tests.faults.results_table import Row, Table
from tests.faults.scenario import (
    SUPERVISOR_KILLED,
    SUPERVISOR_TERMINATED,
    Fault,
    FaultEnvironment,
    seconds_of,
    silenced,
    start_of,
    wait_until_halfway,
)

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(600)]

TASK = "tpot"
MAX_SECONDS = 20.0  # for a busy machine; the container is silent for as long as the test waits


@pytest.mark.parametrize("fault", [SUPERVISOR_KILLED, SUPERVISOR_TERMINATED], ids=lambda fault: fault.name)
def test_attempt_with_silent_container_ends_and_leaves_it(
    environment: FaultEnvironment, baseline: dict[str, bytes], table: Table, fault: Fault
) -> None:
    airflow, name = environment.airflow, f"{fault.name}, its container silent"
    run = re.sub(r"\W+", "-", name)
    environment.reset_data()
    airflow.trigger(DAG, run, environment.conf())
    wait_until_halfway(environment, run, TASK)
    (container,) = environment.monitor.running(run, TASK)
    attempt, began = airflow.process_of(DAG, run, TASK), start_of(environment, DAG, run, TASK)
    with silenced(environment, container):
        fault.inject(environment, DAG, run, TASK)
        # with it ends the lock of the result, for which the next attempt waits
        attempt.wait(timeout=MAX_SECONDS)
    assert airflow.wait_for_run(DAG, run) == "success"
    environment.wait_until_clean()
    assert environment.results() == baseline
    assert environment.monitor.seen[run, TASK] == {container}
    lost = (seconds_of(environment, DAG, run, TASK)[1] - began).total_seconds()
    first, last = seconds_of(environment, DAG, "baseline", TASK)
    lost = max(lost - (last - first).total_seconds(), 0.0)
    table.add(Row(name, TASK, "ModelOperator", "success, same container", lost, "nothing"))
