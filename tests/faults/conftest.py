"""One environment for the whole suite, and the results of a run without faults."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from tests.faults.airflow_process import DAG
from tests.faults.environment import fault_environment
from tests.faults.results_table import Table
from tests.faults.scenario import TASKS, FaultEnvironment


@pytest.fixture(scope="package")
def environment(engine: docker.DockerClient) -> Iterator[FaultEnvironment]:
    with fault_environment(engine) as found:
        yield found


@pytest.fixture(scope="package")
def baseline(environment: FaultEnvironment) -> dict[str, bytes]:
    """Run the DAG without faults; return the outputs of its containers."""
    environment.reset_data()
    environment.airflow.trigger(DAG, "baseline", environment.conf())
    assert environment.airflow.wait_for_run(DAG, "baseline") == "success"
    assert environment.leftovers() == []
    results = environment.results()
    # predictions of validation and live rows, an output of preprocessing, and one of post-processing
    assert len(results) == len(TASKS) + 1
    return results


@pytest.fixture(scope="package")
def table() -> Table:
    """Collect the outcome of each fault."""
    return Table()
