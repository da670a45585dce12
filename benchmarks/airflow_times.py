"""The times of a run's tasks, from this checkout's Airflow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

DATABASE = Path(__file__).resolve().parent.parent / ".airflow" / "airflow.db"


class TaskTime(NamedTuple):
    """The last attempt of a task: its state, and when it began and ended."""

    state: str
    began: datetime
    ended: datetime

    @property
    def seconds(self) -> float:
        """Its duration."""
        return (self.ended - self.began).total_seconds()


def read_database() -> closing[sqlite3.Connection]:
    """Open Airflow's database to read it; for a `with` statement."""
    return closing(sqlite3.connect(f"file:{DATABASE}?mode=ro", uri=True))


def task_times(run_id: str) -> dict[str, TaskTime]:
    """Read the times of the tasks of a run that began and ended."""
    with read_database() as database:
        rows: list[Any] = database.execute(
            "select task_id, state, start_date, end_date from task_instance where run_id = ? and end_date is not null",
            (run_id,),
        ).fetchall()
    moments = {task: (state, began, ended) for task, state, began, ended in rows if began}
    return {
        task: TaskTime(state, *(datetime.fromisoformat(each).replace(tzinfo=UTC) for each in (began, ended)))
        for task, (state, began, ended) in moments.items()
    }
