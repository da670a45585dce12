"""Time, peak memory and quality of Jim Fleming's branch beside the methods of 2018; writes ``docs/results/fleming.md``.

Makes tables with a known signal and two markets that differ a little, then runs each operation in its container, and
the methods of 2018 (``fleming_2018.py``) in the ``classic`` image, one after the other, on all cores:

    PYTHONPATH=plugins:model_images/contract/src:. .venv/bin/python benchmarks/fleming.py
    PYTHONPATH=plugins:model_images/contract/src:. .venv/bin/python benchmarks/fleming.py --rows 354000 --no-reference

``--maps`` compares the models with and without t-SNE's embeddings, on rows in hidden groups that only neighbors show.
Results are stored in ``benchmarks/results/fleming.json``, so that sizes can be measured on different days.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import tempfile
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import docker
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from docker.types import Mount
from rich.console import Console

from numerai_contract.outputs import MANIFEST_SUFFIX
from numerai_pipeline.models.registry import load_registry
from tests.images.signals import write_hidden_structure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from numerai_pipeline.models.registry import ModelSpec, Registry

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "model_images"
PAGE = ROOT / "docs" / "results" / "fleming.md"
# processor time of all containers of the benchmark by control group: version 2 (microseconds), version 1 (nanoseconds)
CONTROL_GROUP = "/numerai-benchmark"
PROCESSOR_USE = (
    (Path("/sys/fs/cgroup/numerai-benchmark/cpu.stat"), 1e6),
    (Path("/sys/fs/cgroup/cpuacct/numerai-benchmark/cpuacct.usage"), 1e9),
)
RESULTS = Path(__file__).with_name("results") / "fleming.json"
REFERENCE = Path(__file__).with_name("fleming_2018.py")
FEATURES = 50
SEED = 67
SEARCH_SECONDS = 120
GROUPED_ROWS = 10_000
MAPS = "maps"
TOURNAMENT = "/data/tournament.parquet"
MEMORY = 6_144
# memory for the methods of 2018, which need more than today's limits
REFERENCE_MEMORY = 20_480
TASKS = ("adversarial_validation", "tsne")
REFERENCES = {
    "adversarial_validation": "scikit-learn's random forest, 100 trees",
    "tsne": "scikit-learn's Barnes-Hut, one map of ten",
    "tsne_polynomial": "scikit-learn's Barnes-Hut, one polynomial map of ten",
    "logistic_regression": "dense float64, C = 0.01",
    "pairwise_regression": "dense float64, both rows side by side, C = 0.01",
    "gradient_boosted_trees": "dense float64, histograms",
    "factorization_machines": "dense float64, Gibbs sampler",
}


@dataclass(frozen=True)
class Measured:
    """The cost and quality of one run."""

    seconds: float
    processor_seconds: float
    peak_memory_mib: float
    quality: str


def processor_seconds() -> float:
    """Read the processor time of the benchmark's containers so far, which other work on the machine hardly affects."""
    for path, unit in PROCESSOR_USE:
        if path.is_file():
            return float(path.read_text().replace("usage_usec", "").split()[0]) / unit
    return 0.0


def write_tables(directory: Path, rows: int) -> None:
    """Write the run's two tables, two thirds of the rows in the training table.

    Features follow twelve hidden factors; the later rows' factors lie a tenth of a standard deviation elsewhere. The
    target leans on ten features and on three products of two.
    """
    random = np.random.default_rng(SEED)
    loadings, factor = random.uniform(0.2, 0.7, FEATURES), random.integers(0, 12, FEATURES)
    shift = 0.1 * random.normal(size=12)
    training = rows * 2 // 3
    for name, count, moved, first_era in (("training", training, 0.0, 1), ("tournament", rows - training, 1.0, 129)):
        factors = random.normal(size=(count, 12)) + moved * shift
        matrix = np.sqrt(1 - loadings**2) * random.normal(size=(count, FEATURES)) + loadings * factors[:, factor]
        _write_table(directory / f"{name}.parquet", matrix.astype(np.float32), first_era, random)


def _write_table(path: Path, matrix: NDArray[np.float32], first_era: int, random: np.random.Generator) -> None:
    count = len(matrix)
    logits = matrix[:, :10] @ (0.06 * np.array([1, -1] * 5)) + 0.1 * (matrix[:, 0:3] * matrix[:, 3:6]).sum(axis=1)
    targets = (random.random(count) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    is_training = path.stem == "training"
    eras = first_era + np.arange(count) * (120 if is_training else 12) // count
    columns = {
        "id": [f"{path.stem[:2]}{row:07}" for row in range(count)],
        "era": [f"era{era}" for era in eras],
        "data_type": ["train" if is_training else "validation"] * count,
        **{f"feature{column + 1}": matrix[:, column] for column in range(FEATURES)},
        "target": targets,
    }
    pq.write_table(pa.table(columns), path)


class Bench:
    """Runs operations and methods on a directory of tables."""

    def __init__(self, directory: Path, registry: Registry, shares: int) -> None:
        self._shares = shares
        self._engine = docker.from_env(timeout=24 * 3600)
        self._directory = directory
        self._registry = registry

    def operation(self, spec: ModelSpec, **more: str) -> Measured:
        """Run an operation of the pipeline in its container; `more` are additional parameters."""
        environment = {
            "OPERATION": spec.operation,
            "TRAINING": "/data/training.parquet",
            "STORING": "/data",
            "REPORTING": f"/data/reports/{spec.name}.json",
            "THREADS": str(os.cpu_count()),
            "MEMORY_LIMIT": str(MEMORY),
            "TIME_LIMIT": str(SEARCH_SECONDS),
            "TIME_LIMIT_PART": str(SEARCH_SECONDS // 4),
            **spec.parameters,
            **more,
        }
        if spec.predicts:
            # without VALIDATION: one fit, as the methods of 2018 make
            environment |= {"TESTING": TOURNAMENT, "PREDICTING": f"/data/predictions/{spec.name}.csv"}
        else:
            environment |= {"VALIDATION": TOURNAMENT, "MODEL": f"/data/fits/{spec.name}"}
        before = processor_seconds()
        self._run(spec.image, environment, memory=MEMORY)
        report = json.loads((self._directory / "reports" / f"{spec.name}.json").read_text())
        worked = processor_seconds() - before
        for output in spec.outputs:  # the models read them in the run's directory
            target = self._directory / output
            target.parent.mkdir(exist_ok=True)
            for suffix in ("", MANIFEST_SUFFIX):
                shutil.copy(self._directory / "fits" / spec.name / f"{output}{suffix}", f"{target}{suffix}")
        return Measured(report["seconds"], worked, report["peak_memory_mib"], _quality(report))

    def reference(self, method: str) -> Measured:
        """Run a method of 2018 in the classic image."""
        mount = Mount("/opt/fleming_2018.py", str(REFERENCE), type="bind", read_only=True)
        command = ["python", "/opt/fleming_2018.py", method, "/data"]
        before = processor_seconds()
        output = self._run("classic", {"THREADS": str(os.cpu_count())}, REFERENCE_MEMORY, command, [mount])
        found = json.loads(output.splitlines()[-1])
        names = {"auc": "AUC", "kl_divergence": "KL", "logloss": "logloss"}
        quality = ", ".join(f"{label} {found[key]:.5f}" for key, label in names.items() if key in found)
        return Measured(found["seconds"], processor_seconds() - before, found["peak_memory_mib"], quality)

    def _run(
        self,
        image: str,
        environment: dict[str, str],
        memory: int,
        command: list[str] | None = None,
        mounts: list[Mount] | None = None,
    ) -> str:
        output: bytes = self._engine.containers.run(
            self._registry.image_names[image],
            command,
            entrypoint=[] if command else None,
            environment=environment,
            user=f"{os.getuid() or 10001}",
            network_mode="none",
            mem_limit=f"{memory}m",
            memswap_limit=f"{memory}m",
            mounts=[Mount("/data", str(self._directory), type="bind"), *(mounts or [])],
            cgroup_parent=CONTROL_GROUP,
            cpu_shares=self._shares,
            remove=True,
            init=True,
        )
        return output.decode()


def _quality(report: dict[str, Any]) -> str:
    chosen = report["chosen"]
    if "auc" in chosen:
        return f"AUC {chosen['auc']:.5f}"
    if report["validation"] is None:
        return ", ".join(f"{name} KL {found['kl_divergence']:.3f}" for name, found in chosen["embeddings"].items())
    return f"logloss {report['validation']['logloss']:.5f}"


def measure(
    rows: int, tasks: list[ModelSpec], registry: Registry, references: list[str], shares: int
) -> Iterator[tuple[str, Any]]:
    """Measure everything at one size; yields a name and its measurement."""
    with tempfile.TemporaryDirectory(prefix="numerai-benchmark-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        write_tables(directory, rows)
        bench = Bench(directory, registry, shares)
        for spec in tasks:
            yield spec.name, bench.operation(spec).__dict__
        for method in references:
            yield f"2018: {method}", bench.reference(method).__dict__


def compare_maps(tasks: list[ModelSpec], registry: Registry, shares: int) -> Iterator[tuple[str, dict[str, str]]]:
    """Run every model with its maps and without any, on rows in hidden groups; yields a model and its scores."""
    with tempfile.TemporaryDirectory(prefix="numerai-benchmark-") as name:
        directory = Path(name)
        directory.chmod(0o777)
        signal = write_hidden_structure(directory, GROUPED_ROWS)
        bench = Bench(directory, registry, shares)
        yield "the whole law", {"with": f"{signal.best:.5f}", "without": f"{signal.linear:.5f}"}
        for spec in tasks:
            whole = bench.operation(spec)
            if spec.predicts:
                bare = bench.operation(spec, EMBEDDINGS="none")
                yield spec.name, {"with": whole.quality.split()[-1], "without": bare.quality.split()[-1]}


_ABOUT_MAPS = (
    f"{GROUPED_ROWS:,} training rows of which half belong to one of 16 groups. Membership of a group shifts the target;"
    " it shows in which rows are close, not in any product of two features (`practice/hidden_groups.py`). Logloss of"
    " the validation rows; a constant 0.5 has .69315. The row *the whole law* has the law's linear part"
    " under *without*."
)


def page(results: dict[str, dict[str, Any]]) -> str:
    """Write the page."""
    introduction = (
        "Made by `benchmarks/fleming.py`; do not edit. Generated rows of 50 features, two thirds of them in the"
        f" training table, on {platform.machine()} with {os.cpu_count()} cores, one after the other, beside other work;"
        f" searches had {SEARCH_SECONDS} s. The sizes were measured on different days, on machines that differ in"
        " speed by a factor of two (354,000 rows): compare only within a size. *Processor s* is the time of all cores,"
        " which other work hardly affects. *MiB* is the peak memory of the process. The methods of 2018 run on today's"
        " scikit-learn, in the same image and on the same tables; logloss is that of the validation rows. The split is"
        " made against the validation rows, and t-SNE embeds the rows of both tables; a pipeline run then places its"
        " live rows in these embeddings. A model makes one fit; a pipeline run adds the final fit on all known rows."
    )
    lines = ["# Jim Fleming's branch, measured", "", *textwrap.wrap(introduction, 120)]
    if MAPS in results:
        lines += ["", "## With and without t-SNE's embeddings", "", *textwrap.wrap(_ABOUT_MAPS, 120), ""]
        lines += ["| model | with embeddings | without |", "|---|---:|---:|"]
        lines += [f"| {name} | {found['with']} | {found['without']} |" for name, found in results[MAPS].items()]
    sizes = [name for name in results if name != MAPS]
    for rows in sorted(sizes, key=int):
        found = results[rows]
        lines += ["", f"## {int(rows):,} rows", "", "| method | seconds | processor s | MiB | quality |"]
        lines += ["|---|---:|---:|---:|---|"]
        for name, measured in found.items():
            method = name.removeprefix("2018: ")
            about = f"*2018*: {method} ({REFERENCES[method]})" if method != name else f"`{name}`"
            seconds, memory = measured["seconds"], measured["peak_memory_mib"]
            worked = f"{measured['processor_seconds']:,.0f}" if "processor_seconds" in measured else ""
            lines.append(f"| {about} | {seconds:,.0f} | {worked} | {memory:,.0f} | {measured['quality']} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, store the results, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[20_000], help="rows of both tables together")
    parser.add_argument("--tasks", nargs="+", help="only these tasks (adversarial_validation and tsne come first)")
    parser.add_argument("--reference", nargs="*", choices=list(REFERENCES), default=list(REFERENCES))
    parser.add_argument("--no-reference", dest="reference", action="store_const", const=[])
    parser.add_argument(
        "--maps", action="store_true", help="compare the models with and without t-SNE's embeddings instead"
    )
    parser.add_argument(
        "--shares", type=int, default=1024, help="processor weight; a lower one gives other work precedence"
    )
    arguments = parser.parse_args()
    console = Console()
    registry = load_registry(IMAGES)
    branch = [spec for spec in registry if spec.name in TASKS or "tsne" in spec.depends_on]
    tasks = [spec for spec in branch if not arguments.tasks or spec.name in {*arguments.tasks, *TASKS}]
    results: dict[str, dict[str, Any]] = json.loads(RESULTS.read_text()) if RESULTS.is_file() else {}

    def keep(section: str, name: str, measured: dict[str, Any]) -> None:
        console.print(f"{section}, {name}: {measured}")
        results.setdefault(section, {})[name] = measured
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(page(results))

    if arguments.maps:
        for name, found in compare_maps(tasks, registry, arguments.shares):
            keep(MAPS, name, found)
        return
    for rows in arguments.rows:
        for name, found in measure(rows, tasks, registry, arguments.reference, arguments.shares):
            keep(str(rows), name, found)


if __name__ == "__main__":
    main()
