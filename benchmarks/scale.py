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
import math
import os
import platform
import shutil
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import docker
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from benchmarks.airflow_times import read_database, task_times
from benchmarks.scale_page import write_page
from numerai_pipeline.containers.limits import sandbox_host_config
from numerai_pipeline.containers.mounts import workspace_mounts
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.settings import machine_cores
from numerai_pipeline.dataset.raw import RawDataset, RawFile
from numerai_pipeline.dataset.unpack import find_or_make_dataset, write_live
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import file_sha256, manifest_path
from practice.model import V53
from practice.season import Season

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numerai_pipeline.models.registry import ModelSpec, Registry
    from practice.model import FeatureSet

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).with_name("results") / "scale.json"
PAGE = ROOT / "docs" / "results" / "scale.md"
TODAY = datetime(2026, 8, 15, 19, tzinfo=UTC)
SEED = 67
USER = "10001:10001"
TABLES = ("training", "validation", "live")
FULL_ROWS = 2_749_131
PAYOUT_DAYS = 20
CORES = machine_cores()
MIB = 2**20


class Measured(NamedTuple):
    """A task's container: its exit code and its cost.

    Attributes
    ----------
    exit_code : int
    seconds : float
        From the start of the container to its end.
    processor_seconds : float
        Of all its processes.
    memory : float
        Largest sum of anonymous memory and tmpfs, without the page cache, MiB; sampled once a second.
    cores, limit : int
        Its limits: cores, and memory in MiB.
    """

    exit_code: int
    seconds: float
    processor_seconds: float
    memory: float
    cores: int
    limit: int


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
    raw = RawDataset("v5", "practice", str(number), "v5.3", made_from, payout_days=PAYOUT_DAYS)
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


class Bench:
    """Runs the tasks of a registry on the tables of a folder, and keeps their outputs for the tasks after them.

    Parameters
    ----------
    directory
        For the outputs; each task has a folder in it.
    tables
        The folder of the three tables.
    registry
        The tasks.
    automl_minutes
        Time of a search.
    memory
        Memory limit of every task, MiB; None for that of ``models.yaml``.
    """

    def __init__(
        self, directory: Path, tables: Path, registry: Registry, automl_minutes: int, memory: int | None
    ) -> None:
        self._directory, self._tables, self._registry = directory, tables, registry
        self._automl_minutes, self._memory = automl_minutes, memory
        self._engine = docker.from_env(timeout=24 * 3600)

    def run(self, spec: ModelSpec) -> Measured:
        """Run a task's container to its end."""
        directory = self._directory / spec.name
        shutil.rmtree(directory, ignore_errors=True)
        workspace = Workspace(directory, self._inputs(spec))
        directory.mkdir(parents=True)
        workspace.prepare(USER)
        client, limit = self._engine.api, self._memory or spec.memory
        mounts = workspace_mounts(workspace)
        identifier = client.create_container(
            self._registry.image_names[spec.image],
            environment=self._environment(spec, limit),
            user=USER,
            host_config=sandbox_host_config(client, mounts, memory=limit, cores=CORES),
        )["Id"]
        try:
            began = time.monotonic()
            client.start(identifier)
            sampler = Sampler(client, identifier)
            code = client.wait(identifier)["StatusCode"]
            seconds = time.monotonic() - began
            processor_seconds, memory = sampler.result()
            (self._directory / f"{spec.name}.log").write_bytes(client.logs(identifier))
        finally:
            client.remove_container(identifier, force=True)
        return Measured(code, seconds, processor_seconds, memory, CORES, limit)

    def _environment(self, spec: ModelSpec, limit: int) -> dict[str, str]:
        # it imports Airflow
        from numerai_pipeline.dag.model_operator import contract_environment

        environment = contract_environment(spec, CORES) | {
            "SEED": str(SEED),
            "TARGET_DAYS": str(PAYOUT_DAYS),
            "EMBARGO": "4",
            "MEMORY_LIMIT": str(limit),
        }
        if spec.search_parts:
            environment["TIME_LIMIT"] = str(self._automl_minutes * 60)
            environment["TIME_LIMIT_PART"] = str(self._automl_minutes * 60 // spec.search_parts)
        return environment

    def _inputs(self, spec: ModelSpec) -> dict[str, Path]:
        inputs = {f"{name}.parquet": self._tables / f"{name}.parquet" for name in TABLES}
        upstream = [*self._registry.preprocessing(spec.name)]
        if spec.is_post_processing:
            inputs.pop("live.parquet", None)
            upstream = [*self._registry.upstream(spec.name)]
        if spec.reads_live_rows:
            inputs["live.parquet"] = self._tables / "live.parquet"
        for name in upstream:
            inputs |= self._outputs(self._registry.tasks[name])
        manifests = {f"{name}.manifest.json": manifest_path(path) for name, path in inputs.items()}
        return inputs | {name: path for name, path in manifests.items() if path.is_file()}

    def _outputs(self, spec: ModelSpec) -> dict[str, Path]:
        directory = self._directory / spec.name
        if spec.predicts:
            predictions = f"predictions/{spec.name}.csv"
            files = {
                f"validation/{spec.name}.csv": directory / "model" / "validation.csv",
                predictions: directory / predictions,
            }
        else:
            files = {output: directory / "model" / output for output in spec.outputs}
            files |= {output: directory / output for output in spec.live_outputs}
        # a model that failed has none
        return {name: path for name, path in files.items() if path.is_file()}


class Sampler:
    """Samples the processor time and the memory of a container, once a second, until it ends."""

    def __init__(self, client: docker.APIClient, identifier: str) -> None:
        self._processor_seconds = self._memory = 0.0
        self._stream = client.stats(identifier, decode=True, stream=True)
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self._thread.start()

    def result(self) -> tuple[float, float]:
        """Return processor seconds, and the peak memory in MiB."""
        self._thread.join(timeout=30)
        return self._processor_seconds, self._memory

    def _sample(self) -> None:
        for sample in self._stream:
            used = sample["cpu_stats"]["cpu_usage"]["total_usage"] / 1e9
            details: Mapping[str, int] = sample["memory_stats"].get("stats", {})
            # control groups of version 1, or 2
            anonymous = details.get("total_rss", details.get("anon", 0))
            shared = details.get("total_shmem", details.get("shmem", 0))
            if not used and not anonymous:
                return  # the sample of a container that has ended
            self._processor_seconds = max(self._processor_seconds, used)
            self._memory = max(self._memory, (anonymous + shared) / MIB)


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


def machine() -> str:
    """Describe this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{CORES} cores, {math.floor(memory + 0.5)} GiB, {platform.machine()}"


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
        bench = Bench(arguments.work / name, sampled, registry, arguments.automl_minutes, arguments.memory)
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
