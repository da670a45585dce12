"""The date of a run that determines its round."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from airflow.sdk.types import DagRunProtocol

SCHEDULED = "scheduled"
BACKFILL = "backfill"


def run_date(dag_run: DagRunProtocol) -> datetime | None:
    """Return the time whose round a run belongs to; None for the current round.

    Scheduled and backfilled runs belong to the end of their data interval. Any other run belongs to its logical date,
    if it has one; its data interval is not used, since Airflow derives it from the time of the trigger when the command
    line passes a logical date.
    """
    if dag_run.run_type in (SCHEDULED, BACKFILL):
        return dag_run.data_interval_end
    return dag_run.logical_date
