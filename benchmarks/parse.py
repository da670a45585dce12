"""How long Airflow takes to parse the DAG file, beyond importing Airflow itself.

Each round starts a fresh interpreter, imports what every DAG file imports from Airflow, and then times the import of
``dags/numerai_tournament.py``. Run it as ``python benchmarks/parse.py``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
SCRIPT = """
import sys, time
sys.path[:0] = ["plugins", "dags"]
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup
from airflow.timetables.base import Timetable
started = time.perf_counter()
import numerai_tournament
print(time.perf_counter() - started)
"""


def parse_once(home: str) -> float:
    """Seconds that one parse takes in a fresh interpreter."""
    environment = {**os.environ, "AIRFLOW_HOME": home}
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return float(answer.stdout.splitlines()[-1])


def main() -> None:
    """Time some parses and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="parses to time (default: 7)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        parse_once(home)  # the first fills the operating system's file cache
        seconds = [parse_once(home) for _ in range(rounds)]
    table = Table("parses", "least, s", "median, s", "most, s", title="Parsing the DAG file, beyond importing Airflow")
    figures = (min(seconds), statistics.median(seconds), max(seconds))
    table.add_row(str(rounds), *(f"{figure:.3f}" for figure in figures))
    Console().print(table)


if __name__ == "__main__":
    main()
