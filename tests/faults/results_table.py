"""The table of docs/results/reliability.md, made of the outcomes of the suite.

Rows are stored in ``benchmarks/results/reliability.json`` one by one; a later run replaces them.
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

PAGE = ROOT / "docs" / "results" / "reliability.md"
STORED = ROOT / "benchmarks" / "results" / "reliability.json"
BEGIN, END = "<!-- written by tests/faults, from here -->", "<!-- to here -->"


@dataclass(frozen=True)
class Row:
    """The outcome of one fault.

    Attributes
    ----------
    fault, where : str
        The fault, and the task into which it was injected.
    operator : str
        The task's operator.
    outcome : str
        State of the run, and the containers of the task.
    seconds : float or None
        Seconds by which the task ended later than without the fault; None if it did not end.
    left : str
        Leftovers.
    """

    fault: str
    where: str
    operator: str
    outcome: str
    seconds: float | None
    left: str

    @property
    def key(self) -> str:
        """Its key in the stored results."""
        return f"{self.fault} | {self.where}"

    def line(self) -> str:
        """Return the row as a line of Markdown."""
        seconds = "—" if self.seconds is None else f"{self.seconds:.0f}"
        return f"| {self.fault} | {self.where} ({self.operator}) | {self.outcome} | {seconds} | {self.left} |"


class Table:
    """All rows. Only a run of the whole suite (``make test-faults``) changes the stored results."""

    def __init__(self, stored: Path = STORED, page: Path = PAGE) -> None:
        self._stored, self._page = stored, page
        self._is_stored = os.environ.get("FAULTS") == "all"

    def add(self, row: Row) -> None:
        """Add a row, or replace the row of the same fault and task."""
        self._put("rows", row.key, asdict(row))

    def note(self, name: str, text: str) -> None:
        """Add a note below the table."""
        self._put("notes", name, text)

    def _put(self, kind: str, key: str, value: Any) -> None:
        if not self._is_stored:
            return
        found = json.loads(self._stored.read_text(encoding="utf-8")) if self._stored.exists() else {}
        found.setdefault(kind, {})[key] = value
        found["machine"] = (
            f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.system()}"
        )
        self._stored.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        self._write(found)

    def _write(self, found: dict[str, Any]) -> None:
        rows = [Row(**row) for row in found.get("rows", {}).values()]
        # the rows of both operators are next to each other
        order = list(dict.fromkeys(row.fault for row in rows))
        rows.sort(key=lambda row: (order.index(row.fault), row.operator == "DockerOperator"))
        lines = [
            BEGIN,
            "",
            f"Machine: {found['machine']}, shared with other processes. Airflow retries after 1 s here.",
            "",
            "| fault | injected into | outcome | seconds lost | leftovers |",
            "|---|---|---|---|---|",
            *(row.line() for row in rows),
            "",
            *(f"{note}\n" for note in found.get("notes", {}).values()),
            END,
        ]
        before, _, rest = self._page.read_text(encoding="utf-8").partition(BEGIN)
        self._page.write_text(before + "\n".join(lines) + rest.partition(END)[2], encoding="utf-8")
