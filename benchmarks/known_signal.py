"""How much of a known signal the independent models find, side by side; writes ``docs/models.md``.

Every model that needs no other learns the tables of ``tests/images/signals.py``, whose law is known, and the same with
shuffled targets, where there is nothing to find. The images run as their tests run them, with the memory and cores of
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

from numerai_pipeline.model_registry import FIRST_TASK, ModelSpec, load_registry
from tests.images.conftest import Runner
from tests.images.signals import FEATURES, KnownSignal, write_known_signal

if TYPE_CHECKING:
    from docker.models.containers import Container

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "model_images"
PAGE = ROOT / "docs" / "models.md"
MIB = 2**20


class Measured(NamedTuple):
    """What a run of a model gave: the scores are of the validation eras, the memory of the whole container."""

    logloss: float
    consistency: float
    correlation: float
    seconds: float
    peak_mib: float


def measure(runner: Runner, spec: ModelSpec, search_seconds: int) -> Measured | str:
    """Run a model to its end; return its last line where it failed."""
    environment = {"THREADS": str(spec.cores), "MEMORY_LIMIT": str(spec.memory), **spec.parameters}
    if spec.search_parts:
        environment |= {"TIME_LIMIT": str(search_seconds), "TIME_LIMIT_PART": str(search_seconds // spec.search_parts)}
    limits = {
        "mem_limit": f"{spec.memory}m",
        "memswap_limit": f"{spec.memory}m",
        "nano_cpus": min(spec.cores, os.cpu_count() or 1) * 10**9,
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
    """Watch a container until it ends; return the most memory it was seen to hold, in bytes.

    The engine tells about once a second, and files that were read and could be dropped are left out, as
    ``docker stats`` does.
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
        Model → what it made of the signal, and of shuffled targets; a sentence where it refused those.
    signal
        What there is to find.
    rows
        Of the training table.
    search_seconds
        Of each search.
    """
    to_gain = signal.coin_toss - signal.best

    def row(who: str, logloss: float, *others: str) -> str:
        gain = signal.coin_toss - logloss
        return " | ".join([f"| {who}", f"{logloss:.4f}", f"{gain:+.4f}", f"{gain / to_gain:.0%}", *others]) + " |"

    introduction = (
        "Made by `benchmarks/known_signal.py`; do not edit. Every model learned the same generated table of"
        f" **{rows:,} rows and {FEATURES} features**, whose law is known: the chance of a target of 1 leans on ten"
        " features one by one (linear) and on three products of two of them (interactions); the other features are"
        f" noise. Scores are on {rows // 5:,} rows of later eras. *Gain* is what the logloss is better by than that of"
        " a constant 0.5 (ln 2), and its share of what one who knows the whole law gains: nobody does better, but by"
        " luck. On *shuffled* targets there is nothing to find: a gain would be an error of ours, a loss is what"
        " believing in chance costs, and *none* is a search that found nothing but constants and said so. Real rounds"
        " hold far less signal, and a model that is good here need not be there."
    )
    machine = (
        f"Seen on {os.cpu_count()} cores ({platform.machine()}, {platform.system()}), one model at a time, with the"
        f" memory and cores that `model_images/models.yaml` gives it; each search had {search_seconds} s. *Seconds* and"
        " *memory* (the container's peak, sampled once a second) are of the first run."
    )
    lines = [
        "# What the models find of a known signal",
        "",
        *textwrap.wrap(introduction, 120),
        "",
        *textwrap.wrap(machine, 120),
        "",
        "| model | logloss | gain | of all | consistency | correlation | shuffled: gain | seconds | memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, (real, shuffled) in found.items():
        of_nothing = "none" if isinstance(shuffled, str) else f"{signal.coin_toss - shuffled.logloss:+.4f}"
        scores = f"{real.consistency:.0%}", f"{real.correlation:.3f}", of_nothing
        lines.append(row(f"`{name}`", real.logloss, *scores, f"{real.seconds:,.0f}", f"{real.peak_mib:,.0f}"))
    for who, logloss in (
        ("*a constant 0.5*", signal.coin_toss),
        ("*one who knows the linear part*", signal.linear),
        ("*one who knows the whole law*", signal.best),
    ):
        lines.append(row(who, logloss, *[""] * 5))
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run all the models on both kinds of tables, and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="of the training table (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=120, help="of each search (default: %(default)s)")
    parser.add_argument("--page", type=Path, default=PAGE, help="where to write (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    registry = load_registry(IMAGES)
    engine = docker.from_env(timeout=3600)
    found: dict[str, tuple[Measured, Measured | str]] = {}
    with tempfile.TemporaryDirectory(prefix="numerai-known-signal-") as directory:
        for spec in registry:
            if not spec.predicts or spec.needs != (FIRST_TASK,):
                continue
            image = registry.references[spec.image]
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
