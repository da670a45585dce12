"""
## A Numerai round, from its data to predictions

1. **wait_for_round** checks what was chosen; a scheduled run then waits until the round of its day is open and its live
   data is there.
2. **download** brings the round's files to the shared data volume and verifies them: today's from Numerai, a generated
   practice season's, or a zip of the classic layout.
3. **unzip** turns them into two tables, one to train on and one to predict.
4. **Every model** of `model_images/models.yaml` trains and predicts in its own container. The independent models start
   as soon as the tables are there. Beside them *adversarial validation* finds the training rows most like the
   tournament's, *t-SNE* draws maps of all rows, and the *fleming* models learn from both. A model that fails takes
   only those with it that need it.
5. **ensemble** combines the predictions of the models that succeeded, and **evaluate** scores all of them, models and
   ensembles, and ranks them in a leaderboard.
6. **leaderboard** writes a page that shows what was found out, from scores to maps; the menu *Browse* has it for all
   runs.
7. **submit** hands the predictions of the live rows in to Numerai and waits until they are accepted, if the run is told
   to: it is off unless `submit` is on. Where the settings say so, **approve** asks somebody first.
8. **exploring** gathers what the models left, and the run succeeds only if every task did.

The run's files are in `rounds/<round>/<fingerprint>/` on the data volume; a run with the same settings takes up where
the last one stopped. Everything that can be chosen is on the trigger form.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup

from numerai_pipeline import steps
from numerai_pipeline.dag import submission
from numerai_pipeline.dag.submission import check_submissions
from numerai_pipeline.model_operator import RETRIES, ModelOperator
from numerai_pipeline.model_registry import FIRST_TASK, load_registry
from numerai_pipeline.notifications import dag_callbacks
from numerai_pipeline.parameters import form_fields
from numerai_pipeline.round_sensor import RoundSensor
from numerai_pipeline.settings import load_settings
from numerai_pipeline.timetable import NumeraiRounds

settings = load_settings()
registry = load_registry(settings.images_dir or Path(__file__).resolve().parent.parent / "model_images")
check_submissions(settings.submissions, registry.predictions)

with DAG(
    dag_id="numerai_tournament",
    dag_display_name="Numerai tournament",
    description="A Numerai round, from its data to predictions, each model in its own container",
    doc_md=__doc__,
    # A run's data interval is the week before its start: it belongs to the round that opens at its end.
    schedule=NumeraiRounds.of(settings.schedule),
    start_date=datetime(2024, 1, 6, tzinfo=UTC),
    catchup=False,
    # A scheduled run that waits for its round must not keep others from running; the pool bounds the models' load.
    max_active_runs=3,
    # When the next week's round opens, what still works on this one would only be in its way.
    dagrun_timeout=timedelta(days=7),
    tags=["numerai"],
    default_args={"owner": settings.owner, "retries": RETRIES, "retry_delay": timedelta(seconds=15)},
    # Whom the settings name is told when a run fails, misses its round, or succeeds.
    **dag_callbacks(settings),
) as dag:
    # A round opens some time after noon, and its data may come later still. Nobody works while the run waits.
    wait_for_round = RoundSensor(
        task_id=steps.WAITING_TASK,
        execution_timeout=timedelta(minutes=30),
        doc_md="Checks the run's parameters; a scheduled run waits here for its round, others pass at once.",
    )

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
        op_kwargs={"serves": {spec.name: sorted(registry.dependent_models(spec.name)) for spec in registry}},
        execution_timeout=timedelta(hours=4),
        doc_md="Unpacks the files safely into a training table and a tournament table.",
    )

    # One container a model, as models.yaml has it; what needs no other model starts right after unzip. What comes after
    # the models (ensemble, evaluate) waits for all of them to end and goes on with those that succeeded.
    groups = {name: TaskGroup(name, prefix_group_id=False) for name in registry.groups}
    models = {
        spec.name: ModelOperator(
            task_id=spec.name,
            spec=spec,
            registry=registry,
            run_directory="{{ (ti.xcom_pull(task_ids='unzip') or {'directory': ''})['directory'] }}",
            task_group=groups[spec.group] if spec.group else None,
        )
        for spec in registry
    }

    # The page is written of whatever is there, also of a run in which models failed.
    leaderboard = PythonOperator(
        task_id="leaderboard",
        python_callable=steps.show,
        trigger_rule="all_done",
        execution_timeout=timedelta(minutes=30),
        doc_md="Writes the run's leaderboard into its directory as one HTML file; the menu *Browse* has the live one.",
    )

    # Whoever wants to look first is shown what would be submitted, and how it did.
    if settings.approve_submissions:
        from numerai_pipeline.approval import SubmissionApproval

        approve = SubmissionApproval(
            task_id="approve",
            predictions=registry.predictions,
            models=registry.models,
            subject="Submit to Numerai?",
            trigger_rule="all_done",
            response_timeout=timedelta(hours=settings.approval_hours),
            execution_timeout=timedelta(minutes=30),
            doc_md="Waits for somebody to approve what would be submitted; skipped where there is nothing to submit.",
        )

    # What was asked for goes to Numerai even if some models, or their evaluation, failed: a round does not wait. What
    # cannot be handed in makes this task fail, and so the run.
    submit = PythonOperator(
        task_id="submit",
        python_callable=submission.submit,
        op_kwargs={"predictions": registry.predictions, "models": registry.models},
        trigger_rule="all_success" if settings.approve_submissions else "all_done",
        retry_exponential_backoff=2,
        max_retry_delay=timedelta(minutes=10),
        # Attempts go on until the round closes, or until the next one opens where late predictions are queued.
        execution_timeout=timedelta(days=3),
        doc_md="Uploads the predictions of the live rows and confirms that Numerai accepted them; skipped by default.",
    )

    # Every model is upstream, and so is what comes after them, so the run's state tells the truth; models that were not
    # picked are skipped, not failed.
    exploring = PythonOperator(
        task_id="exploring",
        python_callable=steps.explore,
        op_kwargs={"models": registry.models},
        trigger_rule="none_failed_min_one_success",
        execution_timeout=timedelta(minutes=30),
        doc_md="Gathers the predictions and scores of all models; succeeds only if every task before it did.",
    )

    wait_for_round >> download >> unzip
    for spec in registry:
        [{FIRST_TASK: unzip, **models}[name] for name in registry.upstream(spec.name)] >> models[spec.name]
    everything = [models[name] for name in (*registry.models, *registry.post_processing)]
    everything >> leaderboard
    [*everything, leaderboard] >> exploring
    if settings.approve_submissions:
        leaderboard >> approve >> submit
    else:
        leaderboard >> submit

    # What can be chosen. It comes last, since Airflow copies what it finds here into every task that it makes, and the
    # copies would only be checked and stored with each of them whenever the file is read.
    for name, field in form_fields(registry.models, submit=settings.submit).items():
        dag.params[name] = Param(**field)
