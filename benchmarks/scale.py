"""Time, processor time and memory of every task at the tournament's sizes; writes ``docs/results/scale.md``.

Runs each task's container as a pipeline run does, one after the other, on the tables of a practice season with the size
of Numerai's v5.3. Build the images first (``make images``), then:

    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.scale
    PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.scale --feature-set medium --every-nth-era 4

Results are stored after each task in ``benchmarks/results/scale.json``; a task that is in it is not measured again
(``--again``). ``--record-run`` adds the task times of this checkout's newest run instead, and compares them with the
ideal schedule.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.airflow_times import read_database, task_times
from benchmarks.bench import SEED, TABLES, TARGET_DAYS, Bench, machine
from benchmarks.scale_page import write_page
from numerai_pipeline.core.payout import CORRELATION, PaidScore
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.dataset.unpack import find_or_make_dataset, write_live
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import file_sha256, manifest_path
from practice.model import V53
from practice.season import Season

if TYPE_CHECKING:
    from practice.model import FeatureSet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results") / "scale.json"
PAGE = ROOT / "docs" / "results" / "scale.md"
TODAY = datetime(2026, 8, 15, 19, tzinfo=UTC)
FULL_ROWS = 2_749_131


def make_tables(work: Path, feature_set: FeatureSet) -> Path:
    """Generate the season's files and unpack them as a run does; return the folder of the three tables."""
    folder = work / feature_set / "tables"
    if folder.is_dir():
        return folder
    season = Season(work / "season", replace(V53, generated=feature_set), SEED, today=TODAY)
    number = season.current_round().number
    names = {
        "features": "features.json",
        "train": "train.parquet",
        "validation": "validation.parquet",
        "live": "live.parquet",
    }
    files = {role: season.file(name, number, print) for role, name in names.items()}
    made_from = {role: RawFile(str(path), file_sha256(path)) for role, path in files.items()}
    payout = (PaidScore(CORRELATION, f"corr{TARGET_DAYS}", TARGET_DAYS, 1.0),)
    raw = RawDataset("v5", "practice", str(number), "v5.3", made_from, payout=payout)
    data = DataLayout(work / feature_set / "data")
    dataset = find_or_make_dataset(raw, data, feature_set=feature_set, target=None, every_nth_era=1)
    run = data.run(str(number), "benchmark")
    write_live(raw, dataset, run)
    part = folder.with_name("tables.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    tables = dict(zip(TABLES, (dataset.layout.training, dataset.layout.validation, run.live), strict=True))
    for name, path in tables.items():
        os.link(path, part / f"{name}.parquet")
        os.link(manifest_path(path), manifest_path(part / f"{name}.parquet"))
    return part.rename(folder)


def sample_tables(tables: Path, target: Path, *, share: float, every_nth_era: int) -> Path:
    """Write a random share of the rows of every n-th era; return the folder. The live table is the same."""
    if share >= 1 and every_nth_era == 1:
        return tables
    if target.is_dir():
        return target
    part = target.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    os.link(tables / "live.parquet", part / "live.parquet")
    random = np.random.default_rng(SEED)
    for name in ("training", "validation"):
        source = pq.ParquetFile(tables / f"{name}.parquet", pre_buffer=False)
        with pq.ParquetWriter(part / f"{name}.parquet", source.schema_arrow) as writer:
            for batch in source.iter_batches(65_536):
                eras = np.array(batch.column("era").to_pylist()).astype(int)
                keep = (random.random(len(eras)) < share) & (eras % every_nth_era == 0)
                writer.write_batch(batch.filter(pa.array(keep)))
    return part.rename(target)


def record_run(run_id: str | None) -> dict[str, Any]:
    """Read the task times of a run from this checkout's Airflow, by default of the newest."""
    if run_id is None:
        with read_database() as database:
            query = "select run_id from dag_run where dag_id = 'numerai_tournament' order by start_date desc limit 1"
            (run_id,) = database.execute(query).fetchone()
    times = task_times(run_id)
    first = min(each.began for each in times.values())
    return {
        "run": run_id,
        "machine": machine(),
        "tasks": {
            task: {"state": each.state, "start": (each.began - first).total_seconds(), "seconds": each.seconds}
            for task, each in times.items()
        },
    }


def main() -> None:
    """Measure, store the results, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--feature-set", choices=["small", "medium", "all"], default="small")
    parser.add_argument("--rows", type=int, nargs="+", default=[60_000, 600_000, FULL_ROWS], help="training rows")
    parser.add_argument("--every-nth-era", type=int, default=1, help="use every n-th era only, at its full size")
    parser.add_argument("--tasks", nargs="+", help="only these tasks (default: all)")
    parser.add_argument("--again", action="store_true", help="measure tasks again that have results")
    parser.add_argument("--automl-minutes", type=int, default=10, help="time of a search (default: %(default)s)")
    parser.add_argument("--memory", type=int, help="memory limit of every task, MiB (default: that of models.yaml)")
    parser.add_argument("--work", type=Path, default=ROOT / ".cache" / "scale", help="folder of tables and outputs")
    parser.add_argument("--record-run", nargs="?", const="", metavar="RUN_ID", help="add the times of a run instead")
    parser.add_argument("--page", action="store_true", help="only write the page again")
    arguments = parser.parse_args()
    console = Console()
    registry = load_registry(ROOT / "model_images")
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}

    def keep() -> None:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(write_page(results, registry))

    if arguments.record_run is not None:
        results["run"] = record_run(arguments.record_run or None)
    if arguments.record_run is not None or arguments.page:
        keep()
        return
    tables = make_tables(arguments.work, arguments.feature_set)
    step = arguments.every_nth_era
    for rows in [FULL_ROWS] if step > 1 else sorted(arguments.rows):
        name = f"{arguments.feature_set}-{rows}" + (f"-every-{step}" if step > 1 else "")
        share = min(1.0, rows / FULL_ROWS)
        sampled = sample_tables(tables, arguments.work / name / "tables", share=share, every_nth_era=step)
        bench = Bench(
            arguments.work / name,
            sampled,
            registry,
            automl_minutes=arguments.automl_minutes,
            memory=arguments.memory,
        )
        section = results.setdefault("sizes", {}).setdefault(name, {})
        section |= {
            "feature_set": arguments.feature_set,
            "every_nth_era": step,
            "machine": machine(),
            "automl_minutes": arguments.automl_minutes,
            "rows": {each: pq.read_metadata(sampled / f"{each}.parquet").num_rows for each in TABLES},
        }
        measured = section.setdefault("tasks", {})
        for spec in registry:
            if (arguments.tasks and spec.name not in arguments.tasks) or (
                spec.name in measured and not arguments.again
            ):
                continue
            with console.status(f"{name}: {spec.name}"):
                found = bench.run(spec)
            measured[spec.name] = found._asdict()
            console.print(f"{name}: {spec.name}: {found}")
            keep()


if __name__ == "__main__":
    main()
