"""Random faults, one after the other: ``make test-faults SOAK=200``."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import psutil
import pytest

from tests.faults.airflow_process import DAG
from tests.faults.results_table import Table
from tests.faults.scenario import (
    ENGINE_KILLED_LIVE,
    ENGINE_RESTARTED_LIVE,
    SUPERVISOR_TERMINATED,
    TASK_KILLED,
    TASK_TERMINATED,
    Fault,
    FaultEnvironment,
)

KILLS = int(os.environ.get("SOAK") or "0")
SEED = int(os.environ.get("SOAK_SEED") or "7")
MAX_MINUTES = float(os.environ.get("SOAK_MINUTES") or "120")
KILLS_PER_RUN = 10
# relative frequency of each fault; low for faults that Airflow notices late
WEIGHTS: dict[Fault, int] = {
    TASK_KILLED: 10,
    TASK_TERMINATED: 3,
    SUPERVISOR_TERMINATED: 2,
    ENGINE_KILLED_LIVE: 4,
    ENGINE_RESTARTED_LIVE: 3,
}

pytestmark = [
    pytest.mark.faults,
    pytest.mark.containers,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not KILLS, reason="on request only: make test-faults SOAK=200"),
]


def running_task(environment: FaultEnvironment, run: str) -> str | None:
    """Return a running task of a run; None if there is none."""
    running = [
        each["task_id"] for each in environment.airflow.api.task_instances(DAG, run) if each["state"] == "running"
    ]
    return running[0] if running else None


def inject_at_random(environment: FaultEnvironment, run: str, generator: random.Random, most: int) -> Counter[str]:
    """Inject random faults into running tasks, until the run ends or has had ``most`` faults."""
    injected: Counter[str] = Counter()
    while injected.total() < most and environment.airflow.api.run_state(DAG, run) not in ("success", "failed"):
        time.sleep(generator.uniform(0.0, 3.0))  # the moment of the fault is random
        task = running_task(environment, run)
        if task is None:
            continue
        (fault,) = generator.choices(list(WEIGHTS), list(WEIGHTS.values()))
        try:
            fault.inject(environment, DAG, run, task)
        except (psutil.Error, AssertionError):
            continue  # the task ended at the same moment
        injected[fault.name] += 1
    return injected


def test_runs_with_random_faults_succeed_with_the_same_results(
    environment: FaultEnvironment, baseline: dict[str, bytes], table: Table
) -> None:
    generator = random.Random(SEED)
    environment.engine.restart(live_restore=True)
    injected: Counter[str] = Counter()
    began, runs = time.monotonic(), 0
    while injected.total() < KILLS and time.monotonic() - began < MAX_MINUTES * 60:
        runs += 1
        run = f"soak-{runs}"
        environment.reset_data()
        environment.airflow.trigger(DAG, run, environment.conf())
        injected += inject_at_random(environment, run, generator, min(KILLS_PER_RUN, KILLS - injected.total()))
        assert environment.airflow.wait_for_run(DAG, run) == "success"
        environment.wait_until_clean(timeout=30)
        assert environment.results() == baseline
        assert max(environment.monitor.most_at_once.values()) <= 1
    minutes = (time.monotonic() - began) / 60
    kinds = "; ".join(f"{count} times {name}" for name, count in injected.most_common())
    table.note(
        "soak",
        f"**Soak**: {injected.total()} random faults (seed {SEED}) in {runs} runs, {minutes:.0f} minutes: {kinds}."
        " Every run ended in success with the same files, byte by byte, as a run without faults; there were never two"
        " containers of a task at a time, and no leftovers after any run.",
    )
