"""What Airflow itself must know of the pipeline: it reads this file at its start, in each of its parts."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from numerai_pipeline.timetable import NumeraiRounds


class NumeraiPlugin(AirflowPlugin):
    """The pipeline's own parts of Airflow."""

    name = "numerai"
    timetables = [NumeraiRounds]  # noqa: RUF012 - Airflow's own class declares it so
