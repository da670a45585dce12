"""A run of Airflow without containers: one task that works in a run's directory as a model's does."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import DAG, BaseOperator

from numerai_pipeline.dag.leaderboard_links import LeaderboardLink
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.run_markers import RunRef, mark_in_use

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlayedModel(BaseOperator):
    """Has a model operator's link, and notes itself as `unzip` does."""

    operator_extra_links = (LeaderboardLink(),)
    run_directory = os.environ.get("PLAYED_RUN", "rounds/1335/0123456789ab")

    def execute(self, context: Context) -> None:
        """Note this run in its directory."""
        ti, data = context["ti"], DataLayout(Path(os.environ["NUMERAI_DATA_DIR"]))
        mark_in_use(data, RunLayout(data.root / self.run_directory), RunRef(ti.dag_id, ti.run_id))


with DAG("numerai_tournament", schedule=None, start_date=datetime(2024, 1, 6, tzinfo=UTC)) as dag:
    PlayedModel(task_id="svm")
