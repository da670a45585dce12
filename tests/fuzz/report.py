"""Formats the outcomes of the fuzz tests as a table, for the terminal and for docs/results/robustness.md."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.fuzz.targets import TARGETS
from tests.samples import ROOT

PAGE = ROOT / "docs" / "results" / "robustness.md"
BEGIN, END = "<!-- fuzz: written by make test-fuzz -->", "<!-- fuzz: end -->"
ENOUGH = 10_000


def table(outcomes: Sequence[Mapping[str, Any]]) -> str:
    """Format a Markdown table: a line for each target, and one for all."""
    lines = [
        "| reader | inputs | from the corpus | accepted | rejected, as | unclassified | leftover files |",
        "|---|---:|---:|---:|---|---:|---:|",
    ]
    lines += [_line(TARGETS[outcome["target"]].title, outcome) for outcome in outcomes]
    total: dict[str, Any] = {
        "inputs": sum(outcome["inputs"] for outcome in outcomes),
        "from_corpus": sum(outcome["from_corpus"] for outcome in outcomes),
        "left": sum(outcome["left"] for outcome in outcomes),
        "outcomes": sum((Counter(outcome["outcomes"]) for outcome in outcomes), Counter()),
    }
    return "\n".join([*lines, _line("**all**", total)]) + "\n"


def _line(title: str, outcome: Mapping[str, Any]) -> str:
    counts = dict(outcome["outcomes"])
    used, unclassified = counts.pop("accepted", 0), counts.pop("unclassified", 0)
    refused = ", ".join(f"`{kind}` {count:,}" for kind, count in sorted(counts.items())) or "none"
    cells = [title, f"{outcome['inputs']:,}", f"{outcome['from_corpus']:,}", f"{used:,}", refused]
    return f"| {' | '.join(cells)} | {unclassified:,} | {outcome['left']:,} |"


def write_page(outcomes: Sequence[Mapping[str, Any]], page: Path = PAGE) -> None:
    """Write the table into the page, between its marks."""
    text = page.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    summary = (
        f"{sum(outcome['inputs'] for outcome in outcomes):,} different inputs, seed {outcomes[0]['seed']}, in"
        f" {sum(outcome['seconds'] for outcome in outcomes) / 60:.0f} minutes; Python {platform.python_version()},"
        f" pyarrow {version('pyarrow')}, hypothesis {version('hypothesis')}, {platform.system()} {platform.machine()}."
    )
    page.write_text(f"{before}{BEGIN}\n{summary}\n\n{table(outcomes)}{END}{after}", encoding="utf-8")
