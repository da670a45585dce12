"""Every process is killed at every stage of a run: the run succeeds with the same results and without leftovers."""

from __future__ import annotations

import os
import re

import pytest

from tests.faults.airflow_process import DAG
from tests.faults.results_table import Row, Table
from tests.faults.scenario import (
    AIRFLOW_KILLED,
    ENGINE_KILLED_LIVE,
    FAULTS,
    LATER_PHASES,
    LONG_STAGES,
    STAGES,
    TASK_KILLED,
    TASK_TERMINATED,
    TASKS,
    Fault,
    FaultEnvironment,
    paused_download,
    seconds_of,
    start_of,
    task_of,
    wait_until_halfway,
)

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(1200)]

ALL = os.environ.get("FAULTS") == "all"
PHASES = tuple((phase,) for phase in LATER_PHASES)
# With `make test`: a killed task at every long stage, a terminated one in the phases of a model after its fit, and the
# worst faults of Airflow and of the engine.
SOME = (
    (TASK_KILLED, LONG_STAGES),
    *((TASK_TERMINATED, phase) for phase in PHASES),
    (AIRFLOW_KILLED, ("tpot",)),
    (ENGINE_KILLED_LIVE, ("tpot",)),
)
CASES = tuple((fault, stages) for fault in FAULTS for stages in (STAGES, *PHASES)) if ALL else SOME
NAMES = [f"{fault.name}{' at ' + stages[0] if stages in PHASES else ''}" for fault, stages in CASES]


def target_stages(fault: Fault, stages: tuple[str, ...]) -> tuple[str, ...]:
    """Return the stages of a fault: only container tasks for faults of the engine, only one for slow faults."""
    if "stopped for" in fault.name or "hangs" in fault.name:
        return stages if stages in PHASES else ("tpot",)
    return tuple(stage for stage in stages if task_of(stage) in TASKS) if "engine" in fault.name else stages


def operator_of(stage: str) -> str:
    """Return the operator of a stage's task."""
    return (
        "ModelOperator" if task_of(stage) in TASKS else "RoundSensor" if stage == "wait_for_round" else "PythonOperator"
    )


@pytest.mark.parametrize(("fault", "stages"), CASES, ids=NAMES)
def test_run_with_fault_succeeds_with_the_same_results(
    environment: FaultEnvironment, baseline: dict[str, bytes], table: Table, fault: Fault, stages: tuple[str, ...]
) -> None:
    targets = target_stages(fault, stages)
    run = f"run-{FAULTS.index(fault)}-{re.sub(r'[^a-z]+', '-', stages[0])}"
    environment.engine.restart(live_restore=fault.live_restore)
    environment.reset_data()
    began = {}
    with paused_download(environment, targets), environment.airflow.held(targets) as release:
        environment.airflow.trigger(DAG, run, environment.conf())
        for stage in targets:
            wait_until_halfway(environment, run, stage)
            began[stage] = start_of(environment, DAG, run, task_of(stage))
            fault.inject(environment, DAG, run, task_of(stage))
            release(stage)
            if stage == "download":
                environment.server.resume()
            environment.airflow.wait_for_task(DAG, run, task_of(stage))
    assert environment.airflow.wait_for_run(DAG, run) == "success"
    environment.wait_until_clean()
    assert environment.results() == baseline
    for stage in targets:
        task = task_of(stage)
        took = (seconds_of(environment, DAG, run, task)[1] - began[stage]).total_seconds()
        first, last = seconds_of(environment, DAG, "baseline", task)
        containers = len(environment.monitor.seen[run, task])
        assert environment.monitor.most_at_once[run, task] <= 1
        outcome = "success"
        if task in TASKS:
            assert fault.containers in (None, containers)
            assert fault.uses_retry or environment.airflow.instance(DAG, run, task)["try_number"] == 1
            outcome += ", same container" if containers == 1 else ", a new container"
        if stage in LATER_PHASES:
            # a finished fit is never made again
            assert fit_starts(environment, run, task) == 1
        lost = max(took - (last - first).total_seconds(), 0.0)
        table.add(Row(fault.name, stage, operator_of(stage), outcome, lost, "nothing"))


def fit_starts(environment: FaultEnvironment, run: str, task: str) -> int:
    """Return how many containers of a task have begun to fit."""
    attempts = environment.airflow.instance(DAG, run, task)["try_number"]
    lines = [environment.airflow.log_lines(DAG, run, task, number + 1) for number in range(attempts)]
    starts = [bool(found.count(f"{task} 000")) for found in lines]
    # an attempt that reattached may repeat lines of the container that it followed
    return sum(starts) if len(environment.monitor.seen[run, task]) > 1 else int(any(starts))
