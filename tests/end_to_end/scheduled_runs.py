"""Scheduled runs of a round's day, which Airflow's scheduler creates at that day only: its clock is the real one."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from launcher import local_airflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.paths import ProjectPaths
    from practice.rounds import SeasonRound

_CREATE_RUNS = """
import sys
from datetime import timedelta
import pendulum
from airflow.models.dagrun import DagRun
from airflow.models.serialized_dag import SerializedDagModel
from airflow.timetables.base import DataInterval
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
opening = pendulum.parse(sys.argv[1])
with create_session() as session:
    for dag_id in sys.argv[2:]:
        dag = SerializedDagModel.get_dag(dag_id, session=session)
        begin = opening - timedelta(days=7)
        interval = DataInterval(begin, opening)
        run_id = dag.timetable.generate_run_id(
            run_type=DagRunType.SCHEDULED, run_after=opening, data_interval=interval)
        print(run_id)
        if session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).count():
            continue
        dag.create_dagrun(
            run_id=run_id, logical_date=begin, data_interval=interval, run_after=opening, conf={},
            run_type=DagRunType.SCHEDULED, triggered_by=DagRunTriggeredByType.TIMETABLE,
            state=DagRunState.QUEUED, session=session)
"""


def create_runs(checkout: ProjectPaths, practice_url: str, the_round: SeasonRound, dags: Sequence[str]) -> str:
    """Create the runs of a round's day, as Airflow's scheduler does, unless they exist; return their id."""
    environment = local_airflow.airflow_environment(checkout, port=1, practice_url=practice_url, scheduled=True)
    done = subprocess.run(
        [sys.executable, "-c", _CREATE_RUNS, the_round.opens.isoformat(), *dags],
        env=os.environ | environment,
        cwd=checkout.root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (run_id,) = {line for line in done.stdout.splitlines() if line.startswith("scheduled__")}
    return run_id
