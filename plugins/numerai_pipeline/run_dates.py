"""Which date of a run decides its round."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk.types import DagRunProtocol

SCHEDULED = "scheduled"
BACKFILL = "backfill"


def run_date(dag_run: DagRunProtocol) -> datetime | None:
    """Give the moment whose round a run belongs to; None for the current round.

    The runs of the schedule and of backfills belong to the end of their data interval. Any other run belongs to its
    logical date if it was given one; its data interval says nothing, for Airflow derives it from the moment of the
    trigger when the command line gives a logical date.
    """
    if dag_run.run_type in (SCHEDULED, BACKFILL):
        return dag_run.data_interval_end
    return dag_run.logical_date
