"""The pipeline's Airflow plugin: timetable, priorities, leaderboard page and links, and no secrets for tasks.

Each component of Airflow reads it at start.
"""

from __future__ import annotations

# The scheduler loads plugins before it forks the processes of tasks: libraries that the DAG file needs, imported here,
# are not imported again by each task (measured: half of the time to parse the DAG file).
import airflow.providers.docker.operators.docker  # noqa: F401
import jsonschema  # noqa: F401
import pydantic_settings  # noqa: F401
from airflow.plugins_manager import AirflowPlugin

from numerai_pipeline.dag import task_secrets
from numerai_pipeline.dag.leaderboard_links import EXTERNAL_VIEWS, FASTAPI_APP, LeaderboardLink
from numerai_pipeline.dag.priorities import RunTypePriority
from numerai_pipeline.dag.timetable import NumeraiRounds
from numerai_pipeline.timetable import NumeraiRounds as FormerNumeraiRounds


class NumeraiPlugin(AirflowPlugin):
    """Timetable, priorities, web page, links and listener of the pipeline."""

    name = "numerai"
    timetables = [NumeraiRounds, FormerNumeraiRounds]  # noqa: RUF012 - declared like this by AirflowPlugin
    priority_weight_strategies = [RunTypePriority]  # noqa: RUF012 - as above
    fastapi_apps = [FASTAPI_APP]  # noqa: RUF012 - as above
    external_views = [*EXTERNAL_VIEWS]  # noqa: RUF012 - as above
    listeners = [task_secrets]  # noqa: RUF012 - as above
    operator_extra_links = [LeaderboardLink()]  # noqa: RUF012 - as above
