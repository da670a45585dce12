"""The same faults befall the stock DockerOperator: not to blame it, but to see what the difference is worth."""

from __future__ import annotations

import os
import time

import pytest

from tests.faults.airflow_rig import OwnAirflow
from tests.faults.scenario import FAULTS, Fault, House, wait_for_lines
from tests.faults.table import Row, Table

pytestmark = [
    pytest.mark.faults,
    pytest.mark.containers,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.environ.get("FAULTS") != "all", reason="a comparison: make test-faults"),
]
KEY = ("stock", "stock")
UNDISTURBED_SECONDS = 4.0  # as many ticks as its container counts


def outcome_of(airflow: OwnAirflow, run: str, patience: float) -> str:
    """How the run ended; ``still running`` where it does not in time."""
    deadline = time.monotonic() + patience
    state = airflow.api.run_state("stock", run)
    while state not in ("success", "failed") and time.monotonic() < deadline:
        time.sleep(0.5)
        state = airflow.api.run_state("stock", run)
    return state


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name for fault in FAULTS])
def test_what_the_stock_operator_makes_of_it(house: House, table: Table, fault: Fault) -> None:
    run = f"stock-{FAULTS.index(fault)}"
    house.engine.restart(live_restore=fault.live_restore)
    house.watch.seen[KEY].clear()
    house.watch.most_at_once[KEY] = 0
    house.airflow.trigger("stock", run, {})
    wait_for_lines(house, run, "stock", "stock")
    began = time.monotonic()
    fault.strike(house, "stock", run, "stock")
    state = outcome_of(house.airflow, run, 90)
    seconds = max(time.monotonic() - began - UNDISTURBED_SECONDS, 0.0) if state == "success" else None
    if state not in ("success", "failed"):
        house.airflow.api.fail_run("stock", run, note="a test has waited long enough")
    house.airflow.wait_for(lambda: not house.airflow.stray_processes(), "all processes have ended", 60)
    left = house.engine.remove_containers()
    containers, at_once = len(house.watch.seen[KEY]), house.watch.most_at_once[KEY]
    outcome = f"{state}, {containers} container{'s' if containers > 1 else ''}" + (
        f", {at_once} at the same time" if at_once > 1 else ""
    )
    table.add(
        Row(fault.name, "stock", "DockerOperator", outcome, seconds, f"{left} container(s)" if left else "nothing")
    )
