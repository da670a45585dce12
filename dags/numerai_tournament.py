"""
## A Numerai round, from its data to predictions

1. **download** brings the round's files to the shared data volume and verifies them: today's from Numerai, a generated
   practice season's, or a zip of the classic layout.
2. **unzip** turns them into two tables, one to train on and one to predict.
3. **Every model** of `model_images/models.yaml` trains and predicts in its own container. The independent models start
   as soon as the tables are there. Beside them *adversarial validation* finds the training rows most like the
   tournament's, *t-SNE* draws maps of all rows, and the *fleming* models learn from both. A model that fails takes
   only those with it that need it.
4. **exploring** comes after every model: it gathers what they left, and the run succeeds only if all of them did.

The run's files are in `rounds/<round>/<fingerprint>/` on the data volume; a run with the same settings takes up where
the last one stopped. Everything that can be chosen is on the trigger form.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup
from airflow.timetables.trigger import CronTriggerTimetable

from numerai_pipeline import steps
from numerai_pipeline.model_operator import RETRIES, ModelOperator
from numerai_pipeline.model_registry import FIRST_TASK, load_registry
from numerai_pipeline.notifications import run_callbacks
from numerai_pipeline.parameters import form_fields
from numerai_pipeline.settings import load_settings

settings = load_settings()
registry = load_registry(settings.images_dir or Path(__file__).resolve().parent.parent / "model_images")

# A week's data interval ends when the run starts: a scheduled or backfilled run belongs to the round open at its end.
weekly = (
    CronTriggerTimetable(settings.schedule, timezone="UTC", interval=timedelta(days=7))
    if settings.schedule != "off"
    else None
)

with DAG(
    dag_id="numerai_tournament",
    dag_display_name="Numerai tournament",
    description="A Numerai round, from its data to predictions, each model in its own container",
    doc_md=__doc__,
    schedule=weekly,
    start_date=datetime(2024, 1, 6, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    params={name: Param(**field) for name, field in form_fields(registry.models).items()},
    tags=["numerai"],
    default_args={"owner": settings.owner, "retries": RETRIES, "retry_delay": timedelta(seconds=15)},
    # Whom the settings name is told when a run fails, misses its round, or succeeds.
    **run_callbacks(settings),
) as dag:
    # The network may fail and be tried again; a download that fails leaves nothing behind that looks finished.
    download = PythonOperator(
        task_id="download",
        python_callable=steps.download,
        retry_exponential_backoff=2,
        max_retry_delay=timedelta(minutes=10),
        execution_timeout=timedelta(hours=12),
        doc_md="Brings the round's files to the data volume and verifies them.",
    )

    # Whatever came, it ends in the same two tables.
    unzip = PythonOperator(
        task_id=FIRST_TASK,
        python_callable=steps.unzip,
        execution_timeout=timedelta(hours=4),
        doc_md="Unpacks the files safely into a training table and a tournament table.",
    )

    # One container a model, as models.yaml has it; what needs no other model starts right after unzip.
    groups = {name: TaskGroup(name, prefix_group_id=False) for name in registry.groups}
    models = {
        spec.name: ModelOperator(
            task_id=spec.name,
            spec=spec,
            registry=registry,
            run_directory="{{ ti.xcom_pull(task_ids='unzip')['directory'] }}",
            task_group=groups[spec.group] if spec.group else None,
        )
        for spec in registry
    }

    # Every model is upstream, so the run's state tells the truth; models that were not picked are skipped, not failed.
    exploring = PythonOperator(
        task_id="exploring",
        python_callable=steps.explore,
        op_kwargs={"models": registry.models},
        trigger_rule="none_failed_min_one_success",
        execution_timeout=timedelta(minutes=30),
        doc_md="Gathers the predictions and scores of all models; succeeds only if every model did.",
    )

    download >> unzip
    for spec in registry:
        [{FIRST_TASK: unzip, **models}[need] for need in spec.needs] >> models[spec.name]
    [models[name] for name in registry.models] >> exploring
