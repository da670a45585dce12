"""
## Room for the next rounds

Every Monday, when no round opens, what nobody needs any more is removed:

1. **containers** of this installation for which no task waits any more, a day after they ended; the start of any run
   removes them, too. Those of tasks that still go on, or may be tried again, stay; so do those of everybody else.
2. **runs**: directories `rounds/<round>/<fingerprint>/` in which nothing was written for `keep_days`. Those of the
   last `keep_rounds` rounds of each source stay, and those that a run or a container still works in.
3. **downloads** that no run asked for in `keep_days`: old versions, live data of old rounds, archives, and what was
   left unfinished. What is needed again is downloaded again.

Each thing removed is a line of the task's log, with its size and age; the last line says what was freed. To see what
*would* go, trigger it with *Dry run*.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param
from airflow.timetables.trigger import CronTriggerTimetable

from numerai_pipeline import housekeeping_steps as steps
from numerai_pipeline.settings import load_settings

settings = load_settings()

with DAG(
    dag_id="numerai_housekeeping",
    dag_display_name="Numerai housekeeping",
    description="Removes runs, downloads and containers that nobody needs any more",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 3 * * 1", timezone="UTC") if settings.housekeeping else None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={name: Param(**field) for name, field in steps.form_fields(settings).items()},
    tags=["numerai"],
    default_args={
        "owner": settings.owner,
        "retries": 2,
        "retry_delay": timedelta(minutes=10),
        "execution_timeout": timedelta(hours=1),
    },
) as dag:
    containers = PythonOperator(
        task_id="containers",
        python_callable=steps.clean_containers,
        doc_md="Removes this installation's containers for which no run waits any more.",
    )

    runs = PythonOperator(
        task_id="runs",
        python_callable=steps.clean_runs,
        doc_md="Removes the directories of old runs that nobody works in.",
    )

    downloads = PythonOperator(
        task_id="downloads",
        python_callable=steps.clean_downloads,
        doc_md="Removes downloads that nobody asked for in a long time.",
    )

    # A container that works for nobody would keep its run's directory. Live data goes with the last run of its round.
    containers >> runs >> downloads
