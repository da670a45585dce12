"""Time that Airflow takes to parse the DAG file, without importing Airflow itself, and to serialize the DAG.

Each round starts a new interpreter, imports the parts of Airflow that every DAG file imports, and then times the import
of ``dags/numerai_tournament.py`` and its serialization, which Airflow stores. Run it as
``python benchmarks/dag_parse_time.py``.
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
import json, sys, time
sys.path[:0] = ["plugins", "dags"]
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import Timetable
started = time.perf_counter()
import numerai_tournament
parsed = time.perf_counter()
stored = DagSerialization.to_dict(numerai_tournament.dags["numerai_tournament"])
serialized = time.perf_counter()
print(parsed - started, serialized - parsed, len(json.dumps(stored)))
"""


def parse_once(home: str) -> list[float]:
    """Seconds of a parse and a serialization in a new interpreter, and the size of the latter in bytes."""
    environment = {**os.environ, "AIRFLOW_HOME": home, "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins")}
    answer = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return [float(word) for word in answer.stdout.split()[-3:]]


def main() -> None:
    """Time some parses and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7, help="parses to time (default: 7)")
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as home:
        parse_once(home)  # the first fills the operating system's file cache
        parses, writes, sizes = zip(*(parse_once(home) for _ in range(rounds)), strict=True)
    title = f"Parsing the DAG file {rounds} times, without importing Airflow"
    table = Table("step", "minimum, s", "median, s", "maximum, s", title=title)
    for step, seconds in (("parsing", parses), (f"serializing ({sizes[0] / 1_000:,.0f} kB)", writes)):
        table.add_row(step, *(f"{figure:.3f}" for figure in (min(seconds), statistics.median(seconds), max(seconds))))
    Console().print(table)


if __name__ == "__main__":
    main()
