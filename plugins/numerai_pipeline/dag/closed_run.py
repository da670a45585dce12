"""The data of a scheduled run whose round has closed: cleared tasks use it again, as Numerai no longer serves it."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from numerai_pipeline.dag.run_dates import SCHEDULED
from numerai_pipeline.dataset.raw import RawDataset
from numerai_pipeline.storage.layout import RunLayout, fingerprint

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol

    from numerai_pipeline.storage.layout import DataLayout

RAW_FILES = "raw"
"""Key of the raw files in ``run.json``."""


def run_fingerprint(dag: str, run: str) -> str:
    """Return the name of a run's directory."""
    return fingerprint({"dag": dag, "run": run})


def data_of_closed_run(data: DataLayout, dag_run: DagRunProtocol, now: datetime) -> RawDataset | None:
    """Return the raw files that a scheduled run has unpacked, if its round has closed.

    Parameters
    ----------
    data : DataLayout
        The data volume.
    dag_run : DagRunProtocol
        The run.
    now : datetime
        The present moment.

    Returns
    -------
    RawDataset or None
        None if the round is open, which can be downloaded, or if neither the raw files nor the live rows still exist.
    """
    if dag_run.run_type != SCHEDULED:
        return None
    for directory in sorted(data.rounds.glob(f"*/{run_fingerprint(dag_run.dag_id, dag_run.run_id)}")):
        layout = RunLayout(directory)
        try:
            raw = RawDataset.from_json(json.loads(layout.run_metadata.read_text(encoding="utf-8"))[RAW_FILES])
        except (OSError, ValueError, TypeError, KeyError):
            # unpacked by an earlier release, or not completely
            continue
        has_closed = raw.closes is not None and datetime.fromisoformat(raw.closes) <= now
        if has_closed and (layout.live.is_file() or all(raw.path(role).is_file() for role in raw.files)):
            return raw
    return None
