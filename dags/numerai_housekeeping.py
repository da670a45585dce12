"""
## Space for the next rounds

Every Monday, when no round opens, old runs, results, downloads and containers are removed:

1. **containers** of this deployment whose task is no longer active, a day after they ended; the start of any run
   removes them, too. Containers of tasks that run or will be retried stay, as do the containers of other deployments.
2. **runs**: directories `rounds/<round>/<fingerprint>/` in which no file was written for `keep_days`. The directories
   of the last `keep_rounds` rounds of each source stay, as do directories of queued and running runs. So do the
   records of submissions, `submissions/<source>/<round>/`.
3. **results** and datasets older than `keep_days` that none of the remaining runs uses, and workspaces of containers
   that did not end well. Fits of the datasets that the remaining runs use stay.
4. **downloads** that no run used for `keep_days`: old versions, live data of old rounds, archives, and incomplete
   files. A file that is needed again is downloaded again.

The task's log has a line for each removal, with size and age, and the total at its end. *Dry run* on the trigger form
only lists the removals.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, CronTriggerTimetable, Param

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag import housekeeping

settings = load_settings()

with DAG(
    dag_id="numerai_housekeeping",
    dag_display_name="Numerai housekeeping",
    description="Removes old runs, results, downloads and containers",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("0 3 * * 1", timezone="UTC") if settings.housekeeping else None,
    start_date=datetime(2024, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={name: Param(**field) for name, field in housekeeping.form_fields(settings).items()},
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
        python_callable=housekeeping.clean_containers,
        doc_md="Removes this deployment's containers whose task is no longer active.",
    )

    runs = PythonOperator(
        task_id="runs",
        python_callable=housekeeping.clean_runs,
        doc_md="Removes the directories of old runs that are not in use.",
    )

    results = PythonOperator(
        task_id="results",
        python_callable=housekeeping.clean_results,
        doc_md="Removes results and datasets that no remaining run uses.",
    )

    downloads = PythonOperator(
        task_id="downloads",
        python_callable=housekeeping.clean_downloads,
        doc_md="Removes downloads that no run used for a long time.",
    )

    # A run keeps its results, and the live data of its round.
    containers >> runs >> results >> downloads
