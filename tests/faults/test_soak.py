"""Kills at random, one after the other, for as long as it takes: ``make test-faults SOAK=200``."""

from __future__ import annotations

import os
import random
import time
from collections import Counter

import psutil
import pytest

from tests.faults.airflow_rig import DAG
from tests.faults.scenario import (
    ENGINE_ENDED_LIVE,
    ENGINE_KILLED_LIVE,
    SUPERVISOR_ENDED,
    TASK_ENDED,
    TASK_KILLED,
    Fault,
    House,
)
from tests.faults.table import Table

KILLS = int(os.environ.get("SOAK") or "0")
SEED = int(os.environ.get("SOAK_SEED") or "7")
MOST_MINUTES = float(os.environ.get("SOAK_MINUTES") or "120")
KILLS_PER_RUN = 10
# how often each is drawn: what takes Airflow long to notice, seldom
DRAWN: dict[Fault, int] = {
    TASK_KILLED: 10,
    TASK_ENDED: 3,
    SUPERVISOR_ENDED: 2,
    ENGINE_KILLED_LIVE: 4,
    ENGINE_ENDED_LIVE: 3,
}

pytestmark = [
    pytest.mark.faults,
    pytest.mark.containers,
    pytest.mark.timeout(0),
    pytest.mark.skipif(not KILLS, reason="only asked for: make test-faults SOAK=200"),
]


def working_task(house: House, run: str) -> str | None:
    """Name a task of a run that works at the moment."""
    working = [each["task_id"] for each in house.airflow.api.task_instances(DAG, run) if each["state"] == "running"]
    return working[0] if working else None


def strike_at_random(house: House, run: str, generator: random.Random, most: int) -> Counter[str]:
    """Strike whatever task works, again and again, until a run is over or was struck often enough."""
    struck: Counter[str] = Counter()
    while struck.total() < most and house.airflow.api.run_state(DAG, run) not in ("success", "failed"):
        time.sleep(generator.uniform(0.0, 3.0))  # the moment of the kill is what is random
        task = working_task(house, run)
        if task is None:
            continue
        (fault,) = generator.choices(list(DRAWN), list(DRAWN.values()))
        try:
            fault.strike(house, DAG, run, task)
        except (psutil.Error, AssertionError):
            continue  # it ended by itself at this very moment
        struck[fault.name] += 1
    return struck


def test_random_kills(house: House, undisturbed: dict[str, bytes], table: Table) -> None:
    generator = random.Random(SEED)
    house.engine.restart(live_restore=True)
    struck: Counter[str] = Counter()
    began, runs = time.monotonic(), 0
    while struck.total() < KILLS and time.monotonic() - began < MOST_MINUTES * 60:
        runs += 1
        run = f"soak-{runs}"
        house.forget()
        house.airflow.trigger(DAG, run, house.conf())
        struck += strike_at_random(house, run, generator, min(KILLS_PER_RUN, KILLS - struck.total()))
        assert house.airflow.end_of_run(DAG, run) == "success"
        house.airflow.wait_for(lambda: not house.left_behind(), f"nothing is left ({house.left_behind()})", 30)
        assert house.results() == undisturbed
        assert max(house.watch.most_at_once.values()) <= 1
    minutes = (time.monotonic() - began) / 60
    kinds = "; ".join(f"{count} times {name}" for name, count in struck.most_common())
    table.note(
        "soak",
        f"**Soak**: {struck.total()} kills at random (seed {SEED}) in {runs} runs, {minutes:.0f} minutes: {kinds}."
        " Every run ended in success with the same files, byte by byte, as the undisturbed one; never two containers of"
        " a task at a time; nothing was left behind after any of them.",
    )
