"""Measures how much of a known signal each independent model finds, for ``docs/results/known-signal.md``.

Every model without dependencies is trained on the tables of ``tests/images/signals.py``, whose law is known, and on the
same with shuffled targets, which have no signal. The containers run as in a pipeline run, with the memory and cores of
``models.yaml``, one after the other. Build them first (``make images``), then:
``PYTHONPATH=plugins:. .venv/bin/python -m benchmarks.known_signal``.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import textwrap
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from benchmarks.bench import Bench, machine
from benchmarks.models_page import write_section
from numerai_pipeline.core.task_ids import UNZIP
from numerai_pipeline.models.registry import ModelSpec, load_registry
from tests.images.signals import FEATURES, KnownSignal, write_known_signal

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "model_images"


class Found(NamedTuple):
    """The results of a model's run: scores of the validation eras, and the cost of its container."""

    logloss: float
    consistency: float
    correlation: float
    seconds: float
    peak_mib: float


def measure(bench: Bench, spec: ModelSpec) -> Found | str:
    """Run a model to its end; return its last line if it failed."""
    measured = bench.run(spec)
    if measured.exit_code:
        return bench.last_line(spec.name)
    report = json.loads((bench.directory(spec.name) / "model" / "report.json").read_text())
    scores = report["validation"]
    return Found(scores["logloss"], scores["consistency"], scores["correlation"], measured.seconds, measured.memory)


def section(
    found: dict[str, tuple[Found, Found | str]], signal: KnownSignal, rows: int, search_seconds: int
) -> list[str]:
    """Write the section of the page.

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
    measured = (
        f"Measured on {machine()}, one model at a time, with the"
        f" memory and cores of `model_images/models.yaml`; each search had {search_seconds} s. *Seconds* (both fits and"
        " the predictions) and *memory* (the container's peak, sampled once a second) are of the run with the signal."
    )
    lines = [
        "## A known signal, and how much of it the models find",
        "",
        *textwrap.wrap(introduction, 120),
        "",
        *textwrap.wrap(measured, 120),
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
    return lines


def main() -> None:
    """Run all the models on both kinds of tables, and write the section."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000, help="rows of the training table (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=120, help="time limit of each search (default: %(default)s)")
    arguments = parser.parse_args()
    console = Console()
    registry = load_registry(IMAGES)
    found: dict[str, tuple[Found, Found | str]] = {}
    with tempfile.TemporaryDirectory(prefix="numerai-known-signal-") as directory:
        for spec in registry:
            if not spec.predicts or spec.depends_on != (UNZIP,):
                continue
            runs: dict[bool, Found | str] = {}
            for shuffled in (True, False):
                folder = Path(directory) / f"{spec.name}-{shuffled}"
                tables = folder / "tables"
                tables.mkdir(parents=True)
                signal = write_known_signal(tables, arguments.rows, shuffled=shuffled)
                bench = Bench(folder, tables, registry, automl_minutes=arguments.seconds / 60, cores=None)
                runs[shuffled] = measure(bench, spec)
                console.print(f"{spec.name}{', shuffled' if shuffled else ''}: {runs[shuffled]}")
            real = runs[False]
            if isinstance(real, str):
                raise SystemExit(f"{spec.name}: {real}")
            found[spec.name] = real, runs[True]
    write_section("known_signal", section(found, signal, arguments.rows, arguments.seconds))


if __name__ == "__main__":
    main()
