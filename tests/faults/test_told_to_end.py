"""What somebody ends in the web UI is over within seconds, and says why."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable

import pytest

from numerai_pipeline.container_log import SECONDS_BETWEEN_NOTES
from tests.faults.airflow_rig import DAG, OwnAirflow
from tests.faults.scenario import House, wait_for_lines
from tests.faults.table import Row, Table

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(600)]

TASK = "tpot"
PROMISED_SECONDS = 5.0
ENDED_BY: dict[str, Callable[[OwnAirflow, str], None]] = {
    "the task is marked failed": lambda airflow, run: airflow.mark_failed(DAG, run, TASK),
    "the run is marked failed": lambda airflow, run: airflow.api.fail_run(DAG, run, note="a test"),
    "the run's time is up (dagrun_timeout)": lambda airflow, run: airflow.let_time_pass(DAG, run, days=8),
    "the task is cleared": lambda airflow, run: airflow.clear(DAG, run, TASK),
}


@pytest.mark.parametrize("what", ENDED_BY if os.environ.get("FAULTS") == "all" else ["the task is marked failed"])
def test_what_is_ended_takes_its_container_with_it(
    house: House, undisturbed: dict[str, bytes], table: Table, what: str
) -> None:
    run = re.sub(r"\W+", "-", what)
    house.forget()
    house.airflow.trigger(DAG, run, house.conf())
    wait_for_lines(house, run, TASK)
    (container,) = house.watch.running(run, TASK)
    asked = time.monotonic()
    ENDED_BY[what](house.airflow, run)
    house.airflow.wait_for(lambda: container not in house.watch.running(run, TASK), "the container is gone")
    seconds = time.monotonic() - asked
    state = house.airflow.end_of_run(DAG, run)
    assert state == ("success" if "cleared" in what else "failed")
    house.airflow.wait_for(lambda: not house.left_behind(), f"nothing is left ({house.left_behind()})", 20)
    (kept,) = house.run_directory().glob(f"logs/{TASK}.try-*.log")
    assert "stopped because Airflow said so" in kept.read_text()
    assert f"{TASK} 003" in kept.read_text()
    if state == "success":
        assert house.results() == undisturbed
    assert seconds < PROMISED_SECONDS
    table.add(Row(what, TASK, "ModelOperator", f"{state}, container gone", seconds, "nothing"))


def test_the_next_try_goes_on_with_the_log_where_the_last_one_stopped(house: House) -> None:
    house.forget()
    house.airflow.trigger(DAG, "log", house.conf())
    wait_for_lines(house, "log", TASK)

    def passed_on(attempt: int) -> list[str]:
        return [line for line in house.airflow.said(DAG, "log", TASK, attempt) if line.startswith(f"{TASK} 0")]

    house.airflow.wait_for(lambda: bool(passed_on(1)), f"what {TASK} says is in Airflow's log")
    (container,) = house.watch.running("log", TASK)
    with contextlib.closing(house.engine.client) as client:
        # how far the log was passed on is noted every other second, with the next line: let one come so late
        client.api.pause(container)
        heard = len(passed_on(1))
        time.sleep(SECONDS_BETWEEN_NOTES)
        client.api.unpause(container)
        house.airflow.wait_for(lambda: len(passed_on(1)) > heard + 1, f"{TASK} goes on")
        client.api.pause(container)
        house.airflow.process_of(DAG, "log", TASK).kill()
        client.api.unpause(container)
    assert house.airflow.end_of_run(DAG, "log") == "success"
    first, second = passed_on(1), passed_on(2)
    assert first
    assert second
    # what was said since the last note may be said again, nothing is left out
    assert second[0] > first[0]
    assert second[-1] == f"{TASK} 024"
    assert set(first) | set(second) == {f"{TASK} {tick:03d}" for tick in range(25)}
    assert len(second) == len(set(second))
