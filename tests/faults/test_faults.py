"""Every process is killed at every stage of a run: the run succeeds with the same results and without leftovers."""

from __future__ import annotations

import os

import pytest

from tests.faults.airflow_process import DAG
from tests.faults.results_table import Row, Table
from tests.faults.scenario import (
    AIRFLOW_KILLED,
    ENGINE_KILLED_LIVE,
    FAULTS,
    LONG_STAGES,
    STAGES,
    TASK_KILLED,
    TASKS,
    Fault,
    FaultEnvironment,
    paused_download,
    seconds_of,
    start_of,
    wait_until_halfway,
)

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(1200)]

ALL = os.environ.get("FAULTS") == "all"
# With `make test`: a killed task at every long stage, and the worst faults of Airflow and of the engine.
SOME = ((TASK_KILLED, LONG_STAGES), (AIRFLOW_KILLED, ("tpot",)), (ENGINE_KILLED_LIVE, ("tpot",)))
CASES = tuple((fault, STAGES) for fault in FAULTS) if ALL else SOME


def target_stages(fault: Fault, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the stages of a fault: only container tasks for faults of the engine, only one for slow faults."""
    if "stopped for" in fault.name or "hangs" in fault.name:
        return ("tpot",)
    return tuple(stage for stage in stages if stage in TASKS) if "engine" in fault.name else stages


def operator_of(stage: str) -> str:
    """Return the operator of a stage's task."""
    return "ModelOperator" if stage in TASKS else "RoundSensor" if stage == "wait_for_round" else "PythonOperator"


@pytest.mark.parametrize(("fault", "stages"), CASES, ids=[fault.name for fault, _ in CASES])
def test_run_with_fault_succeeds_with_the_same_results(
    environment: FaultEnvironment, baseline: dict[str, bytes], table: Table, fault: Fault, stages: tuple[str, ...]
) -> None:
    targets = target_stages(fault, stages)
    run = f"run-{FAULTS.index(fault)}"
    environment.engine.restart(live_restore=fault.live_restore)
    environment.reset_data()
    began = {}
    with paused_download(environment, targets), environment.airflow.held(targets) as release:
        environment.airflow.trigger(DAG, run, environment.conf())
        for stage in targets:
            wait_until_halfway(environment, run, stage)
            began[stage] = start_of(environment, DAG, run, stage)
            fault.inject(environment, DAG, run, stage)
            release(stage)
            if stage == "download":
                environment.server.resume()
            environment.airflow.wait_for_task(DAG, run, stage)
    assert environment.airflow.wait_for_run(DAG, run) == "success"
    environment.wait_until_clean()
    assert environment.results() == baseline
    for stage in targets:
        took = (seconds_of(environment, DAG, run, stage)[1] - began[stage]).total_seconds()
        first, last = seconds_of(environment, DAG, "baseline", stage)
        containers = len(environment.monitor.seen[run, stage])
        assert environment.monitor.most_at_once[run, stage] <= 1
        outcome = "success"
        if stage in TASKS:
            assert fault.containers in (None, containers)
            outcome += ", same container" if containers == 1 else ", a new container"
        lost = max(took - (last - first).total_seconds(), 0.0)
        table.add(Row(fault.name, stage, operator_of(stage), outcome, lost, "nothing"))
