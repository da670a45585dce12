"""The table of docs/reliability.md, made of what the suite saw.

Rows are kept in ``benchmarks/results/reliability.json`` as soon as they are seen; a later run replaces its own.
"""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from launcher.paths import ROOT

PAGE = ROOT / "docs" / "reliability.md"
KEPT = ROOT / "benchmarks" / "results" / "reliability.json"
BEGIN, END = "<!-- written by tests/faults, from here -->", "<!-- to here -->"


@dataclass(frozen=True)
class Row:
    """What became of one fault.

    Attributes
    ----------
    fault, where : str
        What went wrong, and which task was struck.
    operator : str
        Whose task that was.
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

    @property
    def key(self) -> str:
        """What tells it apart from others."""
        return f"{self.fault} | {self.where}"

    def line(self) -> str:
        """As a line of Markdown."""
        seconds = "—" if self.seconds is None else f"{self.seconds:.0f}"
        return f"| {self.fault} | {self.where} ({self.operator}) | {self.outcome} | {seconds} | {self.left} |"


class Table:
    """All of them. Only a run of the whole suite (``make test-faults``) changes what is kept."""

    def __init__(self, kept: Path = KEPT, page: Path = PAGE) -> None:
        self._kept, self._page = kept, page
        self._is_kept = os.environ.get("FAULTS") == "all"

    def add(self, row: Row) -> None:
        """Put a row in."""
        self._put("rows", row.key, asdict(row))

    def note(self, name: str, text: str) -> None:
        """Put a remark below the table."""
        self._put("notes", name, text)

    def _put(self, kind: str, key: str, value: Any) -> None:
        if not self._is_kept:
            return
        found = json.loads(self._kept.read_text(encoding="utf-8")) if self._kept.exists() else {}
        found.setdefault(kind, {})[key] = value
        found["machine"] = (
            f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
        )
        self._kept.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self._write(found)

    def _write(self, found: dict[str, Any]) -> None:
        rows = [Row(**row) for row in found.get("rows", {}).values()]
        # what befell one is beside what befell the other
        order = list(dict.fromkeys(row.fault for row in rows))
        rows.sort(key=lambda row: (order.index(row.fault), row.operator == "DockerOperator"))
        lines = [
            BEGIN,
            "",
            f"Machine: {found['machine']}, with other work on it. Airflow tries again after 1 s here.",
            "",
            "| fault | struck | outcome | seconds lost | left behind |",
            "|---|---|---|---|---|",
            *(row.line() for row in rows),
            "",
            *(f"{note}\n" for note in found.get("notes", {}).values()),
            END,
        ]
        before, _, rest = self._page.read_text(encoding="utf-8").partition(BEGIN)
        self._page.write_text(before + "\n".join(lines) + rest.partition(END)[2], encoding="utf-8")
