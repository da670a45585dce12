"""Duration of a backtest of a year of weeks, and its share without the models; writes ``docs/results/backtest.md``.

Runs ``make backtest`` on the simulated tournament with one cheap model, and reads its results. Results of earlier runs
are not used. Build the images first (``make images``), then:
``PYTHONPATH=plugins:. .venv/bin/python benchmarks/backtest.py``.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "results" / "backtest.md"


class Week(NamedTuple):
    """One run: seconds from its start to its end, and the seconds of its containers."""

    day: str
    state: str
    seconds: float
    container_seconds: float
    corr: float | None


def read_weeks(path: Path, data: Path, model: str) -> list[Week]:
    """Read the results of a backtest: its CSV file, and the reports of its runs."""
    weeks = []
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            reports = [
                json.loads(report.read_text()) for report in data.glob(f"rounds/{row['round']}/*/reports/*.json")
            ]
            container_seconds = sum(float(report.get("seconds") or 0) for report in reports)
            corr = float(row[model]) if row.get(model) else None
            weeks.append(Week(row["week"], row["state"], float(row["seconds"]), container_seconds, corr))
    return weeks


def page(weeks: list[Week], model: str, wall: float, at_once: int) -> str:
    """Write the page."""
    failed = sum(week.state != "success" for week in weeks)
    scores = [week.corr for week in weeks if week.corr is not None]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    text = (
        f"Made by `benchmarks/backtest.py`; do not edit. `make backtest WEEKS={len(weeks)} MODELS={model}` on the"
        f" simulated tournament, {at_once} weeks at once, on {machine}: **{len(weeks)} weeks, {failed} failed, in"
        f" {wall / 60:.0f} min {wall % 60:.0f} s**, Airflow's start and end included."
    )
    median = statistics.median(week.seconds for week in weeks)
    work = statistics.median(week.container_seconds for week in weeks)
    rows = {
        "wall time per week": f"{wall / len(weeks):.1f} s",
        "duration of a run, median": f"{median:.1f} s",
        "its containers (model, ensembles, scores), median": f"{work:.1f} s",
        "the rest: Airflow's tasks, starts and ends of containers, download, unpacking": f"{median - work:.1f} s",
        f"mean CORR of {model}": f"{statistics.fmean(scores):+.4f} over {len(scores)} weeks" if scores else "unknown",
    }
    table = ["| measurement | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(["# A year of weeks, measured", "", *textwrap.wrap(text, 120), "", *table, ""])


def main() -> None:
    """Run the backtest, read its results, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=52, help="number of weeks (default: %(default)s)")
    parser.add_argument("--model", default="xgboost", help="the model (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=2, help="number of parallel runs (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write (default: %(default)s)")
    chosen = parser.parse_args()
    options = [f"WEEKS={chosen.weeks}", f"MODELS={chosen.model}", f"AT_ONCE={chosen.at_once}", "FORCE=1"]
    began = time.monotonic()
    answer = subprocess.run(["make", "backtest", *options], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    wall = time.monotonic() - began
    print(answer.stdout)
    found = re.findall(r"^Every score: (.+)$", answer.stdout, flags=re.MULTILINE)
    if not found:
        sys.exit("the backtest has no scores")
    weeks = read_weeks(Path(found[0]), Path(found[0]).parent.parent, chosen.model)
    chosen.page.write_text(page(weeks, chosen.model, wall, chosen.at_once))
    print(chosen.page.read_text())


if __name__ == "__main__":
    main()
