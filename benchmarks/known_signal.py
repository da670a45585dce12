"""Measures how much of a known signal each independent model finds; writes ``docs/results/known-signal.md``.

Every model without dependencies is trained on the tables of ``tests/images/signals.py``, whose law is known, and on the
same with shuffled targets, which have no signal. The images run as in their tests, with the memory and cores of
``models.yaml``, one after the other. Build them first (``make images``), then:
``PYTHONPATH=plugins:. .venv/bin/python benchmarks/known_signal.py``.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import docker
from rich.console import Console

from numerai_pipeline.core.task_ids import UNZIP
from numerai_pipeline.models.registry import ModelSpec, load_registry
from tests.images.conftest import Runner
from tests.images.signals import FEATURES, KnownSignal, write_known_signal

if TYPE_CHECKING:
    from docker.models.containers import Container

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "model_images"
PAGE = ROOT / "docs" / "results" / "known-signal.md"
MIB = 2**20


class Measured(NamedTuple):
    """The results of a model's run: scores of the validation eras, memory of the whole container."""

    logloss: float
    consistency: float
    correlation: float
    seconds: float
    peak_mib: float


def measure(runner: Runner, spec: ModelSpec, search_seconds: int) -> Measured | str:
    """Run a model to its end; return its last line if it failed."""
    cores = spec.cores_of(os.cpu_count() or 1)
    environment = {"THREADS": str(cores), "MEMORY_LIMIT": str(spec.memory), **spec.parameters}
    if spec.search_parts:
        environment |= {"TIME_LIMIT": str(search_seconds), "TIME_LIMIT_PART": str(search_seconds // spec.search_parts)}
    limits = {
        "mem_limit": f"{spec.memory}m",
        "memswap_limit": f"{spec.memory}m",
        "nano_cpus": cores * 10**9,
    }
    container = runner.start(spec.operation, limits, **environment)
    peak = peak_memory(container)
    ended = runner.wait(container, spec.operation)
    if ended.code:
        return ended.lines[-1]
    scores = ended.report["validation"]
    return Measured(
        scores["logloss"], scores["consistency"], scores["correlation"], ended.report["seconds"], peak / MIB
    )


def peak_memory(container: Container) -> int:
    """Watch a container until it ends; return its peak memory in bytes.

    The engine reports about once a second; cached files that could be dropped are excluded, as in ``docker stats``.
    """
    peak = 0
    samples: Any = container.stats(stream=True, decode=True)
    for sample in samples:
        memory = sample["memory_stats"]
        if "usage" not in memory:
            break
        # cgroup v1, then v2
        droppable = memory["stats"].get("total_inactive_file", memory["stats"].get("inactive_file", 0))
        peak = max(peak, memory["usage"] - droppable)
    return peak


def page(found: dict[str, tuple[Measured, Measured | str]], signal: KnownSignal, rows: int, search_seconds: int) -> str:
    """Write the page.

    Parameters
    ----------
    found
        Model → its results with the signal, and with shuffled targets (an error text if it rejected these).
    signal
        The known signal.
    rows
        Number of rows of the training table.
    search_seconds
        Time limit of each search.
    """
    to_gain = signal.coin_toss - signal.best

    def row(label: str, logloss: float, *others: str) -> str:
        gain = signal.coin_toss - logloss
        return " | ".join([f"| {label}", f"{logloss:.4f}", f"{gain:+.4f}", f"{gain / to_gain:.0%}", *others]) + " |"

    introduction = (
        "Made by `benchmarks/known_signal.py`; do not edit. Every model was trained on the same generated table"
        f" of **{rows:,} rows and {FEATURES} features** with a known law: the probability of a target of 1 depends on"
        " ten features (linear) and on three products of two of them (interactions); the other features are noise."
        f" Scores are on {rows // 5:,} rows of later eras. *Gain* is the improvement of the logloss over a constant 0.5"
        " (ln 2), and *of all* its share of the gain of a model that has the whole law, which no model can beat except"
        " by chance. *Shuffled* targets have no signal: a gain would be an error in this project, a loss is the price"
        " of overfitting, and *none* is a search that found only constants and failed. Real rounds have far less"
        " signal, and a model that is good here may not be good there."
    )
    machine = (
        f"Measured on {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), one model at a time, with the"
        f" memory and cores of `model_images/models.yaml`; each search had {search_seconds} s. *Seconds* and"
        " *memory* (the container's peak, sampled once a second) are of the first run."
    )
    lines = [
        "# A known signal, and how much of it the models find",
        "",
        *textwrap.wrap(introduction, 120),
        "",
        *textwrap.wrap(machine, 120),
        "",
        "| model | logloss | gain | of all | consistency | correlation | shuffled: gain | seconds | memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (real, shuffled) in found.items():
        without_signal = "none" if isinstance(shuffled, str) else f"{signal.coin_toss - shuffled.logloss:+.4f}"
        scores = f"{real.consistency:.0%}", f"{real.correlation:.3f}", without_signal
        lines.append(row(f"`{name}`", real.logloss, *scores, f"{real.seconds:,.0f}", f"{real.peak_mib:,.0f}"))
    for label, logloss in (
        ("*a constant 0.5*", signal.coin_toss),
        ("*the linear part of the law*", signal.linear),
        ("*the whole law*", signal.best),
    ):
        lines.append(row(label, logloss, *[""] * 5))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all the models on both kinds of tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the training table (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=120, help="time limit of each search (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    registry = load_registry(IMAGES)
    engine = docker.from_env(timeout=3600)
    found: dict[str, tuple[Measured, Measured | str]] = {}
    with tempfile.TemporaryDirectory(prefix="numerai-known-signal-") as directory:
        for spec in registry:
            if not spec.predicts or spec.depends_on != (UNZIP,):
                continue
            image = registry.image_names[spec.image]
            runs: dict[bool, Measured | str] = {}
            for shuffled in (True, False):
                runner = Runner(engine, image, Path(directory) / f"{spec.name}-{shuffled}")
                signal = write_known_signal(runner.directory, arguments.rows, shuffled=shuffled)
                try:
                    runs[shuffled] = measure(runner, spec, arguments.seconds)
                finally:
                    runner.close()
                console.print(f"{spec.name}{', shuffled' if shuffled else ''}: {runs[shuffled]}")
            real = runs[False]
            if isinstance(real, str):
                raise SystemExit(f"{spec.name}: {real}")
            found[spec.name] = real, runs[True]
    arguments.page.write_text(page(found, signal, arguments.rows, arguments.seconds))
    console.print(arguments.page.read_text())


if __name__ == "__main__":
    main()
