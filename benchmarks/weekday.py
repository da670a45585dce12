"""Duration of a weekday's round with finished fits: from its live data to the last confirmed submission.

Plays two rounds of a practice season with the strict calendar, in this checkout: Saturday's, whose run fits all models,
and Tuesday's, whose run only predicts and submits. Build the images first (``make images``), then:

    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.weekday
    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.weekday --size v5.3 --option AUTOML_MINUTES=10

Each run is a ``make run SOURCE=numerai`` with its own start of Airflow, which is not part of the duration. At size v5.3
the files are those of feature set small.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from benchmarks.airflow_times import task_times
from numerai_pipeline.models.registry import load_registry
from practice.accounts import Account
from practice.model import SIZES, SeasonSize
from practice.rounds import FIRST_ROUND, StrictRound
from practice.season import Season
from practice.server import running

ROOT = Path(__file__).resolve().parent.parent
KEYS = ("PUBLIC-ID-OF-THE-BENCHMARK", "secret-key-of-the-benchmark")
SEED = 67


class Played(NamedTuple):
    """A round: the seconds of its run, and when and how its submissions were confirmed."""

    number: int
    seconds: float
    statuses: list[str]
    tasks: dict[str, float]


def play(season_dir: Path, number: int, size: SeasonSize, options: list[str]) -> Played:
    """Run the DAG in the window of a round, and read what it did."""
    registry = load_registry(ROOT / "model_images")
    opens = StrictRound(number, SEED).opens
    season = Season(season_dir, size, SEED, today=opens + timedelta(minutes=5), calendar="strict")
    season.prepare(print)
    connection = {"conn_type": "generic", "login": KEYS[0], "password": KEYS[1]}
    with running(season, [Account.of(":".join(KEYS), list(registry.predictions))]) as server:
        environment = os.environ | {
            "NUMERAI_API_URL": server.address,
            "AIRFLOW_CONN_NUMERAI_DEFAULT": json.dumps(connection),
            "NUMERAI_SUBMISSIONS": json.dumps({name: name for name in registry.predictions}),
        }
        command = ["make", "run", "SOURCE=numerai", "SUBMIT=1", "REPLACE=1", *options]
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    directory = newest_run(number)
    metadata = json.loads((directory / "run.json").read_text())
    records = [json.loads(path.read_text()) for path in sorted((directory / "submissions").glob("*.json"))]
    records = [record for record in records if "status" in record]
    tasks = task_times(metadata["run_id"])
    confirmed = max(datetime.fromisoformat(record["at"]) for record in records)
    seconds = (confirmed - tasks["wait_for_round"].ended).total_seconds()
    durations = {name: each.seconds for name, each in tasks.items()}
    return Played(number, seconds, [record["status"] for record in records], durations)


def newest_run(number: int) -> Path:
    """Return the directory of the last run of a round."""
    return max((ROOT / "data" / "rounds" / str(number)).glob("[!.]*"), key=lambda path: path.stat().st_mtime)


def main() -> None:
    """Play both rounds and print the durations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=SIZES, default="default", help="size of the season (default: %(default)s)")
    parser.add_argument("--season-dir", type=Path, default=ROOT / ".cache" / "weekday", help="kept files of the season")
    parser.add_argument("--option", action="append", default=[], help="further option of make run, such as MODELS=svm")
    chosen = parser.parse_args()
    size = SIZES[chosen.size]
    saturday = FIRST_ROUND + 5 * ((datetime.now(UTC).date() - StrictRound(FIRST_ROUND).day).days // 7 + 1)
    rounds = [play(chosen.season_dir, number, size, chosen.option) for number in (saturday, saturday + 1)]
    machine = f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}"
    for day, played in zip(("Saturday", "Tuesday"), rounds, strict=True):
        statuses = ", ".join(f"{played.statuses.count(each)} {each}" for each in sorted(set(played.statuses)))
        print(f"{day}, round {played.number}: {played.seconds:.0f} s from the live data to the last of {statuses}")
        print("  " + ", ".join(f"{task} {seconds:.1f}" for task, seconds in sorted(played.tasks.items())))
    print(f"{size.rows_per_era} live rows, {machine}")
    if set(rounds[1].statuses) != {"on-time"}:
        sys.exit("not every submission is on time")


if __name__ == "__main__":
    main()
