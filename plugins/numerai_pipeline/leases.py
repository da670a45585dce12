"""Which of Airflow's runs work in a run's directory, noted in the directory itself.

A run notes itself before it does anything there, and nobody ever takes the note away: whether the run still works,
Airflow knows, whatever has crashed meanwhile. Housekeeping looks, decides and takes a directory away under the same
lock under which runs note themselves, so that a run either is seen or begins with a new directory.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from numerai_pipeline.locks import locked
from numerai_pipeline.manifests import atomic_path
from numerai_pipeline.run_layout import RunLayout, fingerprint

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerai_pipeline.run_layout import DataLayout


@dataclass(frozen=True)
class Lease:
    """A run of Airflow: its DAG and its run id."""

    dag: str
    run: str


def note(data: DataLayout, layout: RunLayout, lease: Lease) -> None:
    """Note in a run's directory, made when it is not there, that this run works in it."""
    with (
        locked(data.rounds_lock, "shared"),
        atomic_path(layout.leases / f"{fingerprint(asdict(lease))}.json") as temporary,
    ):
        temporary.write_text(json.dumps(asdict(lease)) + "\n", encoding="utf-8")


def noted(directory: Path) -> Iterator[Lease]:
    """Give the runs that ever noted themselves in a run's directory; notes nobody can read are passed over."""
    for file in sorted(RunLayout(directory).leases.glob("*.json")):
        try:
            yield Lease(**json.loads(file.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            continue
