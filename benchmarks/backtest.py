"""How long a year of weeks takes, and how much of it is not the models; writes ``docs/backtest.md``.

Runs ``make backtest`` as a user does, on the practice season with one cheap model, and reads what it leaves. Nothing of
an earlier run is used again. Build the images first (``make images``), then:
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
PAGE = ROOT / "docs" / "backtest.md"


class Week(NamedTuple):
    """One run: seconds from its start to its end, and those in which a container of it worked."""

    day: str
    state: str
    seconds: float
    at_work: float
    corr: float | None


def read_weeks(path: Path, data: Path, model: str) -> list[Week]:
    """Read what a backtest left: its CSV, and the reports of its runs."""
    weeks = []
    with path.open(encoding="utf-8") as file:
        for row in csv.DictReader(file):
            reports = [
                json.loads(report.read_text()) for report in data.glob(f"rounds/{row['round']}/*/reports/*.json")
            ]
            at_work = sum(float(report.get("seconds") or 0) for report in reports)
            corr = float(row[model]) if row.get(model) else None
            weeks.append(Week(row["week"], row["state"], float(row["seconds"]), at_work, corr))
    return weeks


def page(weeks: list[Week], model: str, wall: float, at_once: int) -> str:
    """Write the page."""
    failed = sum(week.state != "success" for week in weeks)
    scores = [week.corr for week in weeks if week.corr is not None]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    text = (
        f"Made by `benchmarks/backtest.py`; do not edit. `make backtest WEEKS={len(weeks)} MODELS={model}` on the"
        f" practice season, {at_once} weeks at once, on {machine}: **{len(weeks)} weeks, {failed} failed, in"
        f" {wall / 60:.0f} min {wall % 60:.0f} s**, Airflow's start and end included."
    )
    median = statistics.median(week.seconds for week in weeks)
    work = statistics.median(week.at_work for week in weeks)
    rows = {
        "wall time a week, of the whole": f"{wall / len(weeks):.1f} s",
        "a run from its start to its end, median": f"{median:.1f} s",
        "of it its containers at work, median (model, ensembles, scores)": f"{work:.1f} s",
        "the rest: Airflow's tasks, containers' starts and ends, download, unpacking": f"{median - work:.1f} s",
        f"mean CORR of {model}": f"{statistics.fmean(scores):+.4f} over {len(scores)} weeks" if scores else "unknown",
    }
    table = ["| what | |", "|---|---:|", *(f"| {name} | {value} |" for name, value in rows.items())]
    return "\n".join(["# A year of weeks, measured", "", *textwrap.wrap(text, 120), "", *table, ""])


def main() -> None:
    """Run the backtest, read what it left, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weeks", type=int, default=52, help="how many (default: %(default)s)")
    parser.add_argument("--model", default="xgboost", help="the model (default: %(default)s)")
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: %(default)s)")
    chosen = parser.parse_args()
    knobs = [f"WEEKS={chosen.weeks}", f"MODELS={chosen.model}", f"AT_ONCE={chosen.at_once}", "FORCE=1"]
    began = time.monotonic()
    answer = subprocess.run(["make", "backtest", *knobs], cwd=ROOT, stdout=subprocess.PIPE, text=True, check=False)
    wall = time.monotonic() - began
    print(answer.stdout)
    found = re.findall(r"^Every score: (.+)$", answer.stdout, flags=re.MULTILINE)
    if not found:
        sys.exit("the backtest left no scores")
    weeks = read_weeks(Path(found[0]), Path(found[0]).parent.parent, chosen.model)
    chosen.page.write_text(page(weeks, chosen.model, wall, chosen.at_once))
    print(chosen.page.read_text())


if __name__ == "__main__":
    main()
