"""The table of docs/reliability.md, made of what the suite saw."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass, field

import psutil

from launcher.checkout import ROOT

PAGE = ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- written by tests/faults, from here -->", "<!-- to here -->"


@dataclass(frozen=True)
class Row:
    """What became of one fault.

    Attributes
    ----------
    fault, where : str
        What went wrong, and at which stage.
    operator : str
        Whose task was struck.
    outcome : str
        What became of it.
    seconds : float or None
        How much later than undisturbed the task ended; None where it never did.
    left : str
        What was left behind.
    """

    fault: str
    where: str
    operator: str
    outcome: str
    seconds: float | None
    left: str

    def line(self) -> str:
        """As a line of Markdown."""
        seconds = "—" if self.seconds is None else f"{self.seconds:.0f}"
        return f"| {self.fault} | {self.where} | {self.operator} | {self.outcome} | {seconds} | {self.left} |"


@dataclass
class Table:
    """All of them."""

    rows: list[Row] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def write(self) -> None:
        """Write the rows into the page, if everything was played."""
        if os.environ.get("FAULTS") != "all" or not self.rows:
            return
        machine = f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
        lines = [
            BEGIN,
            "",
            f"Seen on a machine with {machine}; seconds depend on how soon Airflow tries again (here after 1 s).",
            "",
            "| fault | struck | operator | outcome | seconds lost | left behind |",
            "|---|---|---|---|---|---|",
            *(row.line() for row in self.rows),
            "",
            *(f"{note}\n" for note in self.notes),
            END,
        ]
        text = PAGE.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        PAGE.write_text(before + "\n".join(lines) + rest.partition(END)[2], encoding="utf-8")
