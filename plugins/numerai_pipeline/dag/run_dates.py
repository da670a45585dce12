"""The date of a run that determines its round, and the ids of live runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from numerai_pipeline.core.round_calendar import FIRST_OPENING

if TYPE_CHECKING:
    from airflow.sdk.types import DagRunProtocol

SCHEDULED = "scheduled"
BACKFILL = "backfill"


def run_type_of(dag_run: DagRunProtocol) -> str:
    """Return the kind of a run as plain text, such as ``scheduled``; in a task it is an enumeration of strings."""
    return str.__str__(dag_run.run_type)


def run_date(dag_run: DagRunProtocol) -> datetime | None:
    """Return the time whose round a run belongs to; None for the current round.

    Scheduled and backfilled runs belong to the end of their data interval. Any other run belongs to its logical date,
    if it has one; its data interval is not used, since Airflow derives it from the time of the trigger when the command
    line passes a logical date.
    """
    if dag_run.run_type in (SCHEDULED, BACKFILL):
        return dag_run.data_interval_end
    return dag_run.logical_date


def live_run_ids(now: datetime) -> list[str]:
    """List the ids that the scheduled runs of the last week have, as far as their days are scheduled.

    Parameters
    ----------
    now : datetime
        The present moment, in UTC.
    """
    openings = (datetime.combine(now.date() - timedelta(days=days), FIRST_OPENING) for days in range(8))
    return [f"{SCHEDULED}__{opening.isoformat()}" for opening in openings]
