"""Markers of the Airflow runs that use a run's directory, kept in the directory itself.

A run writes a marker with its run id before it uses the directory. Markers are never deleted: Airflow, not the marker,
decides whether a run is still active, also after a crash. Housekeeping checks the markers and renames a
directory under the lock that runs hold while they write theirs, so a run either is seen or starts in a new directory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from numerai_pipeline.storage.layout import RunLayout, fingerprint
from numerai_pipeline.storage.locks import file_lock
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerai_pipeline.storage.layout import DataLayout


@dataclass(frozen=True)
class RunRef:
    """A run of Airflow: its DAG and its run id."""

    dag: str
    run: str


def mark_in_use(data: DataLayout, layout: RunLayout, run: RunRef) -> None:
    """Write the marker of an Airflow run into a run's directory, which is created if necessary."""
    with (
        file_lock(data.rounds_lock, "shared"),
        atomic_path(layout.run_markers / f"{fingerprint(asdict(run))}.json") as temporary,
    ):
        temporary.write_text(json.dumps(asdict(run)) + "\n", encoding="utf-8")


def runs_using(directory: Path) -> Iterator[RunRef]:
    """Yield the Airflow runs with a marker in a run's directory; unreadable markers are skipped."""
    for file in sorted(RunLayout(directory).run_markers.glob("*.json")):
        try:
            yield RunRef(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
