"""What Airflow itself must know of the pipeline: it reads this file at its start, in each of its parts."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from numerai_pipeline.leaderboard.links import EXTERNAL_VIEWS, FASTAPI_APP, LeaderboardLink
from numerai_pipeline.timetable import NumeraiRounds


class NumeraiPlugin(AirflowPlugin):
    """The pipeline's own parts of Airflow."""

    name = "numerai"
    timetables = [NumeraiRounds]  # noqa: RUF012 - Airflow's own class declares it so
    fastapi_apps = [FASTAPI_APP]  # noqa: RUF012 - likewise
    external_views = [*EXTERNAL_VIEWS]  # noqa: RUF012 - likewise
    operator_extra_links = [LeaderboardLink()]  # noqa: RUF012 - likewise
