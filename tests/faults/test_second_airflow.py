"""A second Airflow on the same data volume and the same engine: it does not touch the containers of the first."""

from __future__ import annotations

import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.airflow_process import DAG, AirflowProcess
from tests.faults.results_table import Row, Table
from tests.faults.scenario import FaultEnvironment, silenced, wait_for_lines

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(1200)]

TASK = "tpot"
RUN = "the-same-run"


@pytest.fixture
def second(environment: FaultEnvironment) -> Iterator[AirflowProcess]:
    folder = Path(tempfile.mkdtemp(prefix="faults-second-"))
    shared = ("NUMERAI_", "DOCKER_", "FAULTS_")
    settings = {name: value for name, value in environment.airflow.environment.items() if name.startswith(shared)}
    airflow = AirflowProcess(folder, settings)
    try:
        airflow.start()
        yield airflow
    finally:
        airflow.end(signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


def test_second_airflow_leaves_the_container_of_the_first(
    environment: FaultEnvironment, second: AirflowProcess, baseline: dict[str, bytes], table: Table
) -> None:
    first = environment.airflow
    environment.reset_data()
    first.trigger(DAG, RUN, environment.conf())
    wait_for_lines(environment, RUN, TASK)
    (container,) = environment.monitor.running(RUN, TASK)
    with silenced(environment, container):
        # without its Airflow the container has no process that claims its result
        first.end(signal.SIGKILL)
        second.trigger(DAG, RUN, environment.conf())
        assert second.wait_for_run(DAG, RUN) == "success"
        assert [each["Id"] for each in environment.engine.containers()] == [container]
    assert environment.results() == baseline
    for part in ("api-server", "dag-processor", "scheduler"):
        first.start_part(part)
    first.wait_until_healthy()
    assert first.wait_for_run(DAG, RUN) == "success"
    environment.wait_until_clean()
    assert environment.results() == baseline
    name = "another Airflow on the same data directory makes the same run"
    table.add(Row(name, TASK, "ModelOperator", "success, container untouched", 0.0, "nothing"))
