"""Time and peak memory of ``submit``: validate, upload and confirm a run's submissions, at the tournament's size.

Makes a run's live table and results in a temporary folder, submits them to a simulator of this machine in a
separate process, and prints a table:

    PYTHONPATH=plugins:. python benchmarks/submission.py
    PYTHONPATH=plugins:. python benchmarks/submission.py --slots 3

Numerai's own servers and the network take time beside this.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from numerai_pipeline.numerai_api.account import Account
from numerai_pipeline.numerai_api.client import ApiClient
from numerai_pipeline.numerai_api.submission_files import find_predictions
from numerai_pipeline.numerai_api.submissions import SubmissionBatch
from numerai_pipeline.numerai_api.tournament import Tournament
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.manifests import write_manifest
from numerai_pipeline.storage.results import ResultInfo, ResultStore
from numerai_pipeline.storage.task_records import TaskRecord, write_record
from numerai_pipeline.storage.used_objects import RunRef
from practice import accounts
from practice.model import SeasonSize
from practice.season import Season
from practice.server import running

LIVE_ROWS = 6_700
SLOTS = 14
SEED = 67
KEYS = ("BENCHMARK", "key-of-the-benchmark")
PLAIN = pa.csv.WriteOptions(quoting_style="none", quoting_header="none")


def make_run(layout: RunLayout, live_ids: list[str], slots: int) -> None:
    """Write a live table and ``slots`` results with predictions of its rows."""
    layout.directory.mkdir(parents=True)
    pq.write_table(pa.table({"id": live_ids, "data_type": ["live"] * len(live_ids)}), layout.live)
    random = np.random.default_rng(SEED)
    for slot in range(slots):
        table = pa.table({"id": live_ids, "prediction": random.uniform(0.01, 0.99, len(live_ids))})
        add_result(layout, f"model_{slot}", table)


def add_result(layout: RunLayout, model: str, table: pa.Table) -> None:
    """Publish a result with these predictions, and link it in the run's directory."""
    directory = layout.data.work(model, "benchmark")
    path = directory / "predictions" / f"{model}.csv"
    path.parent.mkdir(parents=True)
    pa.csv.write_csv(table, path, PLAIN)
    write_manifest(path, rows=table.num_rows)
    info = ResultInfo(model, "benchmark", "prediction", "image", "dataset", layout.directory.parent.name, "dag/run")
    result = ResultStore(layout.data).publish(directory, info)
    record = TaskRecord(model, "image", "dataset", "benchmark", "benchmark", fitted_at="", fit_round="")
    write_record(layout, record, [result], [f"predictions/{model}.csv"])


def submit(address: str, directory: Path, round_number: int, slots: int) -> dict[str, float]:
    """Submit as the task does; returns seconds and the peak memory of this process in MiB."""
    client = ApiClient(address, timeout=60, keys=KEYS)
    layout = RunLayout(directory)
    run = RunRef("numerai_tournament", "benchmark")
    batch = SubmissionBatch(Account(client), Tournament(client), layout, run, "practice", round_number)
    began = time.perf_counter()
    records, errors = batch.submit({f"slot_{slot}": find_predictions(layout, f"model_{slot}") for slot in range(slots)})
    seconds = time.perf_counter() - began
    if errors or {record.status for record in records.values()} != {"on-time"}:
        msg = f"not every submission was accepted: {errors or records}"
        raise SystemExit(msg)
    return {"seconds": seconds, "memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def main() -> None:
    """Print how long ``submit`` takes and the memory it needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slots", type=int, default=SLOTS)
    parser.add_argument("--submit", nargs=3, metavar=("ADDRESS", "DIRECTORY", "ROUND"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.submit:
        address, directory, number = options.submit
        print(json.dumps(submit(address, Path(directory), int(number), options.slots)))
        return
    size = SeasonSize(rows_per_era=LIVE_ROWS, train_eras=1, validation_eras=15, small=2, medium=3, all_features=4)
    with tempfile.TemporaryDirectory() as folder:
        season = Season(Path(folder) / "season", size)
        account = accounts.Account.of(":".join(KEYS), [f"slot_{slot}" for slot in range(options.slots)])
        with running(season, [account]) as server:
            number = season.current_round().number
            layout = DataLayout(Path(folder) / "data").run(str(number), "benchmark")
            make_run(layout, season.live_ids(number), options.slots)
            arguments = ["--slots", str(options.slots), "--submit", server.address, str(layout.directory), str(number)]
            output = subprocess.run([sys.executable, __file__, *arguments], check=True, capture_output=True, text=True)
    measured = json.loads(output.stdout.splitlines()[-1])
    table = Table("submissions", "live rows", "seconds", "peak memory, MiB", title="submit")
    table.add_row(str(options.slots), f"{LIVE_ROWS:,}", f"{measured['seconds']:.1f}", f"{measured['memory_mib']:,.0f}")
    Console().print(table)


if __name__ == "__main__":
    main()
