"""Time and peak memory of unpacking: raw files → the run's two tables.

Makes generated raw files in a temporary folder, unpacks them in a separate process, and prints a table:

    python benchmarks/unpack.py
    python benchmarks/unpack.py --case v5:1000000x780 --case archive:354000x50

The parquet files have row groups of up to a million rows, as Numerai's own do: the hard case for memory.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
DEFAULT_CASES = ("v5:500000x42", "v5:100000x780", "archive:354000x50")
SEED = 67
ERA_ROWS = 5_000
LIVE_ROWS = 6_700
GROUP_ROWS = 1_000_000
CHUNK_ROWS = 50_000


@dataclass(frozen=True)
class Case:
    """A dataset to unpack: its layout, the rows of all files together, and the number of features."""

    layout: str
    rows: int
    features: int

    @classmethod
    def parse(cls, text: str) -> Case:
        """Read ``v5:500000x42`` or ``archive:354000x50``."""
        match = re.fullmatch(r"(v5|archive):(\d+)x(\d+)", text)
        if match is None or int(match[2]) < 4 * LIVE_ROWS or int(match[3]) < 1:
            msg = f"{text!r} is not LAYOUT:ROWSxFEATURES, such as v5:500000x42, with {4 * LIVE_ROWS} rows or more"
            raise argparse.ArgumentTypeError(msg)
        return cls(match[1], int(match[2]), int(match[3]))

    def __str__(self) -> str:
        return f"{self.layout}:{self.rows}x{self.features}"

    @property
    def parts(self) -> dict[str, int]:
        """Rows of the training, validation and live parts."""
        train = (self.rows - LIVE_ROWS) // 2
        return {"train": train, "validation": self.rows - LIVE_ROWS - train, "live": LIVE_ROWS}


def generated_batch(rng: np.random.Generator, kind: str, first_row: int, rows: int, case: Case) -> pa.RecordBatch:
    """Make rows of one data type: five-level features (v5) or five-digit ones (archive)."""
    numbers = np.arange(first_row, first_row + rows)
    v5 = case.layout == "v5"
    eras = [f"{number // ERA_ROWS + 1:04d}" if v5 else f"era{number // ERA_ROWS + 1}" for number in numbers.tolist()]
    columns: dict[str, Any] = {
        "id": pa.array([f"n{number * 2654435761 % 2**60:015x}" for number in numbers.tolist()]),
        "era": pa.array(eras),
        "data_type": pa.array([kind] * rows),
    }
    for feature in range(case.features):
        name = f"feature_{feature}" if v5 else f"feature{feature + 1}"
        columns[name] = rng.integers(0, 5, rows, np.int8) if v5 else rng.random(rows).round(5)
    targets = rng.integers(0, 5, rows).astype(np.float32) / 4 if v5 else rng.integers(0, 2, rows).astype(np.float32)
    columns["target"] = pa.array(targets, mask=np.full(rows, kind == "live"))
    return pa.record_batch(columns)


def write_v5(directory: Path, case: Case) -> dict[str, Path]:
    """Write a dataset of the v5 layout; returns role → path."""
    rng, first_row = np.random.default_rng(SEED), 0
    paths = {"features": directory / "features.json"}
    for kind, rows in case.parts.items():
        paths[kind] = directory / f"{kind}.parquet"
        schema = generated_batch(rng, kind, 0, 1, case).schema
        with pq.ParquetWriter(paths[kind], schema) as writer:
            for group in range(0, rows, GROUP_ROWS):
                group_rows = min(GROUP_ROWS, rows - group)
                chunks = [
                    generated_batch(rng, kind, first_row + group + start, min(CHUNK_ROWS, group_rows - start), case)
                    for start in range(0, group_rows, CHUNK_ROWS)
                ]
                writer.write_table(pa.Table.from_batches(chunks), row_group_size=group_rows)
        first_row += rows
    features = [name for name in schema.names if name.startswith("feature")]
    content = {"feature_sets": {"all": features}, "targets": ["target"]}
    paths["features"].write_text(json.dumps(content), encoding="utf-8")
    return paths


def write_archive(directory: Path, case: Case) -> dict[str, Path]:
    """Write a zip of the classic layout; returns role → path."""
    rng, first_row = np.random.default_rng(SEED), 0
    path = directory / "numerai_dataset.zip"
    files = {"numerai_training_data.csv": ["train"], "numerai_tournament_data.csv": ["validation", "live"]}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, kinds in files.items():
            with archive.open(name, "w", force_zip64=True) as file:
                schema = generated_batch(rng, "train", 0, 1, case).schema
                with pa_csv.CSVWriter(file, schema, write_options=pa_csv.WriteOptions(quoting_style="none")) as writer:
                    for kind in kinds:
                        for start in range(0, case.parts[kind], CHUNK_ROWS):
                            rows = min(CHUNK_ROWS, case.parts[kind] - start)
                            writer.write_batch(generated_batch(rng, kind, first_row + start, rows, case))
                        first_row += case.parts[kind]
    return {"archive": path}


def unpack_here(directory: Path, layout: str, paths: dict[str, str]) -> dict[str, float]:
    """Unpack in this process; returns seconds and the process's peak memory in MiB."""
    import resource
    import time

    from numerai_pipeline.dataset.raw import RawDataset, RawFile
    from numerai_pipeline.dataset.unpack import find_or_make_dataset, write_live
    from numerai_pipeline.storage.layout import DataLayout
    from numerai_pipeline.storage.manifests import file_sha256

    kind: Any = layout
    raw = RawDataset(
        kind, "benchmark", "1", "v0", {role: RawFile(path, file_sha256(Path(path))) for role, path in paths.items()}
    )
    began = time.perf_counter()
    data = DataLayout(directory / "data")
    dataset = find_or_make_dataset(raw, data, feature_set="all", target=None, every_nth_era=1)
    write_live(raw, dataset, data.run("1", "benchmark"))
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def in_new_process(*step: str) -> Any:
    """Run a step of this script in a new process.

    A child's peak memory begins at its parent's: big files must not be made by the measuring process.
    """
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "plugins")}
    command = [sys.executable, __file__, "--step", *step]
    return json.loads(subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure(case: Case) -> dict[str, float]:
    """Make the raw files of a case and unpack them."""
    with tempfile.TemporaryDirectory(prefix="numerai-unpack-") as directory:
        paths = in_new_process("make", directory, str(case))
        measured = in_new_process("unpack", directory, case.layout, json.dumps(paths))
        measured["raw_mb"] = sum(Path(path).stat().st_size for path in paths.values()) / 1e6
        measured["tables_mb"] = sum(path.stat().st_size for path in Path(directory, "data").rglob("*.parquet")) / 1e6
        return dict(measured)


def run_step(name: str, directory: Path, *details: str) -> dict[str, Any]:
    """Run a step of :func:`in_new_process`."""
    if name == "unpack":
        layout, paths = details
        return unpack_here(directory, layout, json.loads(paths))
    case = Case.parse(details[0])
    made = (write_v5 if case.layout == "v5" else write_archive)(directory, case)
    return {role: str(path) for role, path in made.items()}


def main() -> None:
    """Measure the cases of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--case",
        type=Case.parse,
        action="append",
        metavar="LAYOUT:ROWSxFEATURES",
        help=f"dataset to unpack; may be repeated (default: {', '.join(DEFAULT_CASES)})",
    )
    parser.add_argument("--step", nargs="+", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        name, directory, *details = arguments.step
        sys.stdout.write(json.dumps(run_step(name, Path(directory), *details)))
        return
    console = Console()
    table = Table("layout", "rows", "features", "raw files", "tables", "seconds", "peak memory", title="Unpacking")
    for column in table.columns[1:]:
        column.justify = "right"
    for case in arguments.case or [Case.parse(text) for text in DEFAULT_CASES]:
        with console.status(str(case)):
            measured = measure(case)
        table.add_row(
            case.layout,
            f"{case.rows:,}",
            f"{case.features:,}",
            f"{measured['raw_mb']:,.0f} MB",
            f"{measured['tables_mb']:,.0f} MB",
            f"{measured['seconds']:.1f}",
            f"{measured['peak_mib']:,.0f} MiB",
        )
    console.print(table)


if __name__ == "__main__":
    main()
