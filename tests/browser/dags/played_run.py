"""A run of Airflow without containers: one task that works in a run's directory as a model's does."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.sdk import DAG, BaseOperator

from numerai_pipeline.dag.leaderboard_links import LeaderboardLink
from numerai_pipeline.storage.layout import RunLayout

if TYPE_CHECKING:
    from airflow.sdk import Context


class PlayedModel(BaseOperator):
    """Has a model operator's link, and writes its run id as `unzip` does."""

    operator_extra_links = (LeaderboardLink(),)
    run_directory = os.environ.get("PLAYED_RUN", "rounds/1335/0123456789ab")

    def execute(self, context: Context) -> None:
        """Write this run's id into the metadata of the directory."""
        ti, data = context["ti"], Path(os.environ["NUMERAI_DATA_DIR"])
        file = RunLayout(data / self.run_directory).run_metadata
        content = json.loads(file.read_text()) | {"dag": ti.dag_id, "run_id": ti.run_id}
        file.write_text(json.dumps(content))


with DAG("numerai_tournament", schedule=None, start_date=datetime(2024, 1, 6, tzinfo=UTC)) as dag:
    PlayedModel(task_id="svm")
