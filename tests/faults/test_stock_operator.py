"""The same faults with the stock DockerOperator, as a comparison."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults.airflow_process import AirflowProcess
from tests.faults.results_table import Row, Table
from tests.faults.scenario import FAULTS, Fault, FaultEnvironment, wait_for_lines

pytestmark = [
    pytest.mark.faults,
    pytest.mark.containers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="a comparison: make test-faults"),
]
KEY = ("stock", "stock")
BASELINE_SECONDS = 4.0  # duration of its container


def outcome_of(airflow: AirflowProcess, run: str, timeout: float) -> str:
    """Wait for the end of a run, or for the timeout; return its state."""
    deadline = time.monotonic() + timeout
    state = airflow.api.run_state("stock", run)
    while state not in ("success", "failed") and time.monotonic() < deadline:
        time.sleep(0.5)
        state = airflow.api.run_state("stock", run)
    return state


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_stock_operator_with_fault_outcome_is_recorded(
    environment: FaultEnvironment, table: Table, fault: Fault
) -> None:
    run = f"stock-{FAULTS.index(fault)}"
    environment.engine.restart(live_restore=fault.live_restore)
    environment.monitor.seen[KEY].clear()
    environment.monitor.most_at_once[KEY] = 0
    environment.airflow.trigger("stock", run, {})
    wait_for_lines(environment, run, "stock", "stock")
    began = time.monotonic()
    fault.inject(environment, "stock", run, "stock")
    state = outcome_of(environment.airflow, run, 90)
    seconds = max(time.monotonic() - began - BASELINE_SECONDS, 0.0) if state == "success" else None
    if state not in ("success", "failed"):
        environment.airflow.api.fail_run("stock", run, note="timeout of a test")
    environment.airflow.wait_for(lambda: not environment.airflow.stray_processes(), "all processes have ended", 60)
    left = environment.engine.remove_containers()
    containers, at_once = len(environment.monitor.seen[KEY]), environment.monitor.most_at_once[KEY]
    outcome = f"{state}, {containers} container{'s' if containers > 1 else ''}" + (
        f", {at_once} at the same time" if at_once > 1 else ""
    )
    table.add(
        Row(fault.name, "stock", "DockerOperator", outcome, seconds, f"{left} container(s)" if left else "nothing")
    )
