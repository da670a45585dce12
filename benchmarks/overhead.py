"""Overhead of operators per container: ModelOperator and the stock DockerOperator compared with ``docker run``.

Uses a separate Airflow (LocalExecutor) and Docker engine; the container prints a line and waits .1 s. A round is a run
of the pipeline in which a task of the stock operator follows every container task (``side_by_side_dag.py``), so that
both are in one DAG and one run, and then as many ``docker run``. A task's duration is Airflow's figure, from the start
of its process to its end, parsing the DAG file included; the overhead is its excess over the median of ``docker run``.

Run it as ``python -m benchmarks.overhead``; it needs the base image (``make images``).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import docker
from rich.console import Console
from rich.table import Table

from tests.faults.airflow_process import DAG
from tests.faults.environment import IDS, fault_environment
from tests.faults.scenario import TASKS, seconds_of

if TYPE_CHECKING:
    from tests.faults.scenario import FaultEnvironment

TICKS = 1
RESULTS = Path(__file__).parent / "results" / "overhead.json"


def bare(environment: FaultEnvironment, name: str) -> float:
    """Seconds of ``docker run`` for the container of the stock operator's tasks."""
    stock = environment.airflow.environment["FAULTS_STOCK_DATA"]
    variables = {
        "OPERATION": "stock",
        "SEED": "5",
        "IDS": ",".join(IDS),
        "TICKS": str(TICKS),
        "PREDICTING": f"/data/{name}.csv",
    }
    command = ["docker", "--host", environment.engine.address, "run", "--rm", "--network=none"]
    command += [f"--volume={stock}:/data", *(f"--env={name}={value}" for name, value in variables.items())]
    began = time.monotonic()
    subprocess.run([*command, environment.airflow.environment["FAULTS_IMAGE"]], check=True, capture_output=True)
    return time.monotonic() - began


def run_both(environment: FaultEnvironment, run: str) -> tuple[list[float], list[float]]:
    """Seconds of each container task of a run, of ModelOperator and of the stock operator."""
    environment.reset_data()
    environment.airflow.trigger(DAG, run, environment.conf())
    state = environment.airflow.wait_for_run(DAG, run)
    if state != "success":
        msg = f"{run} ended in {state}"
        raise RuntimeError(msg)
    return [_duration(environment, run, task) for task in TASKS], [
        _duration(environment, run, f"stock_{task}") for task in TASKS
    ]


def _duration(environment: FaultEnvironment, run: str, task: str) -> float:
    first, last = seconds_of(environment, DAG, run, task)
    return (last - first).total_seconds()


def main() -> None:
    """Measure, print a table and store the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="runs of three container tasks of each (default: 5)")
    rounds = parser.parse_args().rounds
    seen: dict[str, list[float]] = {"docker run": [], "ModelOperator": [], "DockerOperator": []}
    dag_file = Path(__file__).with_name("side_by_side_dag.py")
    with fault_environment(docker.from_env(), ticks=TICKS, dag_file=dag_file) as environment:
        for number in range(rounds):
            ours, stock = run_both(environment, f"round-{number}")
            seen["ModelOperator"] += ours
            seen["DockerOperator"] += stock
            seen["docker run"] += [bare(environment, f"bare-{number}-{task}") for task in TASKS]
    middle = statistics.median(seen["docker run"])
    table = Table("", "containers", "median, s", "overhead, median, s", "from, s", "to, s", title="A container task")
    for name, seconds in seen.items():
        over = [f"{each - middle:.2f}" for each in (statistics.median(seconds), min(seconds), max(seconds))]
        table.add_row(name, str(len(seconds)), f"{statistics.median(seconds):.2f}", *over)
    Console().print(table)
    RESULTS.write_text(
        json.dumps({name: [round(each, 3) for each in seconds] for name, seconds in seen.items()}) + "\n"
    )


if __name__ == "__main__":
    main()
