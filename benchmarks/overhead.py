"""What an operator adds to a container: ModelOperator and the stock DockerOperator beside bare ``docker run``.

A real Airflow (LocalExecutor) and a Docker engine of their own; a container that does next to nothing. Each round is
a run of the pipeline (three container tasks of ours), as many runs of the stock operator, and as many ``docker run``,
one after the other. A task takes what Airflow says it took, from its process's start to its end; the overhead is what
that is more than the median of ``docker run``.

Every task's process reads its DAG file first. Both DAGs are in one file here, as a pipeline of the stock operator's
would be, so that operators are compared; with ``--own-file`` the stock operator's file has nothing else in it.

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

from tests.faults.airflow_rig import DAG
from tests.faults.house import open_house
from tests.faults.scenario import TASKS, seconds_of

if TYPE_CHECKING:
    from tests.faults.scenario import House

KEPT = Path(__file__).parent / "results" / "overhead.json"


def bare(house: House, number: int) -> float:
    """Seconds that ``docker run`` takes for the container of the stock operator's task."""
    stock = house.airflow.environment["FAULTS_STOCK_DATA"]
    variables = {"OPERATION": "bare", "SEED": "5", "IDS": "n0,n1", "TICKS": "0", "PREDICTING": f"/data/{number}.csv"}
    words = ["docker", "--host", house.engine.address, "run", "--rm", "--network=none", f"--volume={stock}:/data"]
    words += [f"--env={name}={value}" for name, value in variables.items()]
    began = time.monotonic()
    subprocess.run([*words, house.airflow.environment["FAULTS_IMAGE"]], check=True, capture_output=True)
    return time.monotonic() - began


def ours(house: House, number: int) -> list[float]:
    """Seconds that each container task of a run of the pipeline takes."""
    run = f"round-{number}"
    house.forget()
    house.airflow.trigger(DAG, run, house.conf())
    state = house.airflow.end_of_run(DAG, run)
    if state != "success":
        msg = f"{run} ended in {state}"
        raise RuntimeError(msg)
    return [_took(house, DAG, run, task) for task in TASKS]


def stock(house: House, number: int) -> float:
    """Seconds that a task of the stock operator takes."""
    run = f"stock-{number}"
    house.airflow.trigger("stock", run, {"ticks": "0"})
    house.airflow.end_of_run("stock", run)
    return _took(house, "stock", run, "stock")


def _took(house: House, dag: str, run: str, task: str) -> float:
    first, last = seconds_of(house, dag, run, task)
    return (last - first).total_seconds()


def main() -> None:
    """Measure and print a table; keep the figures beside this script."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="rounds of three container tasks each (default: 5)")
    parser.add_argument("--own-file", action="store_true", help="give the stock operator's task a DAG file of its own")
    arguments = parser.parse_args()
    rounds = arguments.rounds
    seen: dict[str, list[float]] = {"docker run": [], "ModelOperator": [], "DockerOperator": []}
    with open_house(docker.from_env(), ticks=0, one_file=not arguments.own_file) as house:
        for number in range(rounds):
            seen["ModelOperator"] += ours(house, number)
            for place in range(len(TASKS)):
                seen["DockerOperator"].append(stock(house, number * len(TASKS) + place))
                seen["docker run"].append(bare(house, number * len(TASKS) + place))
    middle = statistics.median(seen["docker run"])
    table = Table("", "containers", "median, s", "overhead, median, s", "from, s", "to, s", title="A container task")
    for name, seconds in seen.items():
        over = [f"{each - middle:.2f}" for each in (statistics.median(seconds), min(seconds), max(seconds))]
        table.add_row(name, str(len(seconds)), f"{statistics.median(seconds):.2f}", *over)
    Console().print(table)
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else {}
    which = "a file each" if arguments.own_file else "one file"
    kept[which] = {name: [round(each, 3) for each in seconds] for name, seconds in seen.items()}
    KEPT.write_text(json.dumps(kept) + "\n")


if __name__ == "__main__":
    main()
