"""One house for the whole suite, open no longer than that, and what a run leaves in it when nobody disturbs it."""

from __future__ import annotations

from collections.abc import Iterator

import docker
import pytest

from tests.faults.airflow_rig import DAG
from tests.faults.house import open_house
from tests.faults.scenario import TASKS, House
from tests.faults.table import Table


@pytest.fixture(scope="package")
def house(engine: docker.DockerClient) -> Iterator[House]:
    with open_house(engine) as found:
        yield found


@pytest.fixture(scope="package")
def undisturbed(house: House) -> dict[str, bytes]:
    """Let a run go through in peace; gives what it left."""
    house.forget()
    house.airflow.trigger(DAG, "undisturbed", house.conf())
    assert house.airflow.end_of_run(DAG, "undisturbed") == "success"
    assert house.left_behind() == []
    results = house.results()
    assert len(results) == len(TASKS)
    return results


@pytest.fixture(scope="package")
def table() -> Table:
    """Gather what became of each fault."""
    return Table()
