"""Everything that can be killed is killed, at every stage of a run; nothing is lost, and nothing is left."""

from __future__ import annotations

import os

import pytest

from tests.faults.airflow_rig import DAG
from tests.faults.scenario import (
    AIRFLOW_KILLED,
    ENGINE_KILLED_LIVE,
    FAULTS,
    LONG_STAGES,
    STAGES,
    TASK_KILLED,
    TASKS,
    Fault,
    House,
    held_download,
    seconds_of,
    start_of,
    wait_for_middle,
)
from tests.faults.table import Row, Table

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(1200)]

ALL = os.environ.get("FAULTS") == "all"
# With `make test`: a killed task at every stage that takes long, and the worst that can befall Airflow and the engine.
SOME = ((TASK_KILLED, LONG_STAGES), (AIRFLOW_KILLED, ("tpot",)), (ENGINE_KILLED_LIVE, ("tpot",)))
PLAYED = tuple((fault, STAGES) for fault in FAULTS) if ALL else SOME


def stages_for(fault: Fault, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Leave out stages that a fault does not concern, or that would only take long."""
    if "away" in fault.name or "hangs" in fault.name:
        return ("tpot",)
    return tuple(stage for stage in stages if stage in TASKS) if "engine" in fault.name else stages


def operator_of(stage: str) -> str:
    """Name the operator of a stage's task."""
    return "ModelOperator" if stage in TASKS else "RoundSensor" if stage == "wait_for_round" else "PythonOperator"


@pytest.mark.parametrize(("fault", "stages"), PLAYED, ids=[fault.name for fault, _ in PLAYED])
def test_nothing_is_lost_and_nothing_is_left(
    house: House, undisturbed: dict[str, bytes], table: Table, fault: Fault, stages: tuple[str, ...]
) -> None:
    struck = stages_for(fault, stages)
    run = f"run-{FAULTS.index(fault)}"
    house.engine.restart(live_restore=fault.live_restore)
    house.forget()
    began = {}
    with held_download(house, struck), house.airflow.held(struck) as let_go:
        house.airflow.trigger(DAG, run, house.conf())
        for stage in struck:
            wait_for_middle(house, run, stage)
            began[stage] = start_of(house, DAG, run, stage)
            fault.strike(house, DAG, run, stage)
            let_go(stage)
            if stage == "download":
                house.server.go_on()
            house.airflow.end_of_task(DAG, run, stage)
    assert house.airflow.end_of_run(DAG, run) == "success"
    house.airflow.wait_for(lambda: not house.left_behind(), f"nothing is left ({house.left_behind()})", 20)
    assert house.results() == undisturbed
    for stage in struck:
        took = (seconds_of(house, DAG, run, stage)[1] - began[stage]).total_seconds()
        first, last = seconds_of(house, DAG, "undisturbed", stage)
        containers = len(house.watch.seen[run, stage])
        assert house.watch.most_at_once[run, stage] <= 1
        outcome = "success"
        if stage in TASKS:
            assert fault.containers in (None, containers)
            outcome += ", same container" if containers == 1 else ", a new container"
        lost = max(took - (last - first).total_seconds(), 0.0)
        table.add(Row(fault.name, stage, operator_of(stage), outcome, lost, "nothing"))
