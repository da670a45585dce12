"""The pipeline's Airflow plugin: timetable, leaderboard page and links. Each component of Airflow reads it at start."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from numerai_pipeline.dag.leaderboard_links import EXTERNAL_VIEWS, FASTAPI_APP, LeaderboardLink
from numerai_pipeline.dag.timetable import NumeraiRounds
from numerai_pipeline.timetable import NumeraiRounds as FormerNumeraiRounds


class NumeraiPlugin(AirflowPlugin):
    """Timetable, web page and links of the pipeline."""

    name = "numerai"
    timetables = [NumeraiRounds, FormerNumeraiRounds]  # noqa: RUF012 - declared like this by AirflowPlugin
    fastapi_apps = [FASTAPI_APP]  # noqa: RUF012 - as above
    external_views = [*EXTERNAL_VIEWS]  # noqa: RUF012 - as above
    operator_extra_links = [LeaderboardLink()]  # noqa: RUF012 - as above
