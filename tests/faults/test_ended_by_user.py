"""Tasks and runs that a user ends in the web UI: the container is removed within seconds, also if it logs nothing."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Callable

import pytest

from numerai_pipeline.containers.log import CHECKPOINT_SECONDS
from tests.faults.airflow_process import DAG, AirflowProcess
from tests.faults.results_table import Row, Table
from tests.faults.scenario import FaultEnvironment, silenced, wait_for_lines

pytestmark = [pytest.mark.faults, pytest.mark.containers, pytest.mark.timeout(600)]

TASK = "tpot"
MAX_SECONDS = 5.0
USER_ACTIONS: dict[str, Callable[[AirflowProcess, str], None]] = {
    "the task is marked failed": lambda airflow, run: airflow.mark_failed(DAG, run, TASK),
    "the run is marked failed": lambda airflow, run: airflow.api.fail_run(DAG, run, note="a test"),
    "the run's time is up (dagrun_timeout)": lambda airflow, run: airflow.shift_start_date(DAG, run, days=8),
    "the task is cleared": lambda airflow, run: airflow.clear(DAG, run, TASK),
}
SILENT = ", its container silent"
ALL = [*USER_ACTIONS, *(f"{action}{SILENT}" for action in ("the task is marked failed", "the task is cleared"))]


@pytest.mark.parametrize("action", ALL if os.environ.get("FAULTS") == "all" else [f"the task is marked failed{SILENT}"])
def test_task_ended_by_user_removes_its_container(
    environment: FaultEnvironment, baseline: dict[str, bytes], table: Table, action: str
) -> None:
    run = re.sub(r"\W+", "-", action)
    environment.reset_data()
    environment.airflow.trigger(DAG, run, environment.conf())
    wait_for_lines(environment, run, TASK)
    (container,) = environment.monitor.running(run, TASK)
    with silenced(environment, container) if SILENT in action else contextlib.nullcontext():
        began = time.monotonic()
        USER_ACTIONS[action.removesuffix(SILENT)](environment.airflow, run)
        environment.airflow.wait_for(
            lambda: container not in [each["Id"] for each in environment.engine.containers()], "the container is gone"
        )
        seconds = time.monotonic() - began
    state = environment.airflow.wait_for_run(DAG, run)
    assert state == ("success" if "cleared" in action else "failed")
    environment.wait_until_clean()
    (saved,) = environment.run_directory().glob(f"logs/{TASK}.try-*.log")
    assert "stopped on Airflow's request" in saved.read_text()
    assert f"{TASK} 003" in saved.read_text()
    if state == "success":
        assert environment.results() == baseline
    assert seconds < MAX_SECONDS
    table.add(Row(action, TASK, "ModelOperator", f"{state}, container gone", seconds, "nothing"))


def test_next_attempt_continues_the_log_at_the_checkpoint(environment: FaultEnvironment) -> None:
    environment.reset_data()
    environment.airflow.trigger(DAG, "log", environment.conf())
    wait_for_lines(environment, "log", TASK)

    def written_lines(attempt: int) -> list[str]:
        return [
            line for line in environment.airflow.log_lines(DAG, "log", TASK, attempt) if line.startswith(f"{TASK} 0")
        ]

    environment.airflow.wait_for(lambda: bool(written_lines(1)), f"lines of {TASK} are in Airflow's log")
    (container,) = environment.monitor.running("log", TASK)
    with contextlib.closing(environment.engine.client) as client:
        # the checkpoint is written with the first line after two seconds: let one line come that late
        client.api.pause(container)
        before = len(written_lines(1))
        time.sleep(CHECKPOINT_SECONDS)
        client.api.unpause(container)
        environment.airflow.wait_for(lambda: len(written_lines(1)) > before + 1, f"{TASK} continues")
        client.api.pause(container)
        environment.airflow.process_of(DAG, "log", TASK).kill()
        client.api.unpause(container)
    assert environment.airflow.wait_for_run(DAG, "log") == "success"
    first, second = written_lines(1), written_lines(2)
    assert first
    assert second
    # lines after the last checkpoint may be repeated, none is missing
    assert second[0] > first[0]
    assert second[-1] == f"{TASK} 024"
    assert set(first) | set(second) == {f"{TASK} {tick:03d}" for tick in range(25)}
    assert len(second) == len(set(second))
