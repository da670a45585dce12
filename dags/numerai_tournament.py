"""
## A Numerai round, from its data to predictions

1. **wait_for_round** checks the configuration and the parameters; a scheduled run then waits until the round of its day
   is open and its live data is available.
2. **download** downloads the round's files to the shared data volume and verifies them: the current ones from Numerai,
   generated ones from the simulated tournament, or a zip of the classic layout. A round whose models are fitted already
   needs the live file only.
3. **unzip** converts them to three tables: a training and a validation table, shared by the rounds of a week, and the
   live rows of this round.
4. **Every model** of `model_images/models.yaml` runs in its own container. Once a week it *fits*: it learns from the
   training table, predicts the validation table, and learns again from both. Then, in every round, it *predicts* the
   live rows with the finished fit. The independent models start as soon as the tables exist. Beside them *adversarial
   validation* finds the training rows that are most similar to the validation rows, *t-SNE* computes embeddings of all
   rows, and the *fleming* models train on both. If a model fails, only the models that depend on it fail with it.
5. **ensemble** combines the predictions of the models that succeeded, and **evaluate** scores models and ensembles and
   ranks them on a leaderboard.
6. **leaderboard** writes a page with all results, from scores to embeddings; the menu *Browse* has it for all runs.
7. **submit** submits the predictions of the live rows to Numerai and waits until they are accepted. Scheduled runs
   submit if the configuration says so, manual runs if `submit` is on. A submission of another run is replaced only
   with `replace`. With `NUMERAI_APPROVE_SUBMISSIONS`, **approve** waits for a user's approval first. A new fit that
   is not ready in time continues; when it is ready before the round closes, **resubmit** starts a run that uses it.
8. **exploring** summarizes the results, and succeeds only if every task before it did.

If no model succeeds, or the data cannot be prepared, the run ends at once. Where notifications are configured,
**deadline** sends one when the round closes soon and nothing is submitted. Scheduled runs have priority over manual
ones, and these over backfilled ones.

The run's directory, `rounds/<round>/<run>/` on the data volume, has the live rows and links to its results. Finished
results never change; every run that needs the same one uses it.
All parameters are on the trigger form. `stables.yaml` lists further DAGs of this graph, *stables*, each with its
schedule, defaults of these parameters, and submissions.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, Param, TaskGroup

from numerai_pipeline.core import task_ids
from numerai_pipeline.core.parameters import form_fields
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag import submission, task_reports, tasks
from numerai_pipeline.dag.assets import predictions_asset, submissions_asset
from numerai_pipeline.dag.deadline import DeadlineAlarm
from numerai_pipeline.dag.model_gate import ModelGate
from numerai_pipeline.dag.model_operator import RETRIES, ModelOperator
from numerai_pipeline.dag.notifications import dag_callbacks, task_callbacks
from numerai_pipeline.dag.priorities import RunTypePriority, set_task_weights
from numerai_pipeline.dag.resubmission import Resubmission
from numerai_pipeline.dag.round_sensor import RoundSensor
from numerai_pipeline.dag.stables import load_stables
from numerai_pipeline.dag.timetable import NumeraiRounds
from numerai_pipeline.models.registry import load_registry

if TYPE_CHECKING:
    from numerai_pipeline.core.stables import Stable

settings = load_settings()
registry = load_registry(settings.images_dir or Path(__file__).resolve().parent.parent / "model_images")
stables = load_stables(settings, registry)


def build_dag(stable: Stable) -> DAG:
    """Build the DAG of a stable: one configuration of this graph."""
    with DAG(
        dag_id=stable.dag_id,
        dag_display_name=stable.title,
        # A mistake in the configuration fails the first task of each run, and is shown here.
        description=stable.problem or "A Numerai round, from its data to predictions, each model in its container",
        doc_md=__doc__,
        # A run's data interval is the week before its start: the run is for the round that opens at the interval's end.
        schedule=NumeraiRounds.of(stable.schedule) if stable.schedule else None,
        start_date=datetime(2024, 1, 6, tzinfo=UTC),
        catchup=False,
        # A scheduled run that waits for its round must not block other runs; the pool limits the load of the models.
        max_active_runs=3,
        # By then the next week's round is open, and needs the machine.
        dagrun_timeout=timedelta(days=7),
        tags=["numerai"],
        default_args={
            "owner": settings.owner,
            "retries": RETRIES,
            "retry_delay": timedelta(seconds=15),
            "weight_rule": RunTypePriority(),
            # Notify the configured channels when a task fails,
            **task_callbacks(),
        },
        # and when a run fails, misses its round, submits late, or succeeds.
        **dag_callbacks(),
    ) as dag:
        # A round opens some time after noon, its data may follow later. Deferred: waiting uses no worker slot.
        wait_for_round = RoundSensor(
            task_id=task_ids.WAIT_FOR_ROUND,
            stable=stable,
            stables=stables,
            execution_timeout=timedelta(minutes=30),
            doc_md="Checks configuration and parameters; a scheduled run waits for its round, others pass at once.",
        )

        # The round closes soon, and nothing is submitted. Deferred until then, or until `submit` has ended.
        if task_callbacks():
            wait_for_round >> DeadlineAlarm(
                task_id=task_ids.DEADLINE,
                submissions=stable.submissions,
                execution_timeout=timedelta(minutes=30),
                doc_md="Notifies when the round closes soon and nothing is submitted; skipped in other runs.",
            )

        # Retried with growing pauses, since the network may fail; a failed download leaves no file that looks complete.
        download = PythonOperator(
            task_id=task_ids.DOWNLOAD,
            python_callable=tasks.download,
            post_execute=task_reports.after_download,
            retry_exponential_backoff=2,
            max_retry_delay=timedelta(minutes=10),
            execution_timeout=timedelta(hours=12),
            doc_md="Downloads the round's files to the data volume and verifies them.",
        )

        # Both data layouts are converted to the same three tables.
        unzip = PythonOperator(
            task_id=task_ids.UNZIP,
            task_display_name="unzip (unpack data)",
            python_callable=tasks.unzip,
            op_kwargs={
                "dependent_models": {spec.name: sorted(registry.dependent_models(spec.name)) for spec in registry}
            },
            execution_timeout=timedelta(hours=4),
            doc_md="Unpacks the files safely into a training, a validation and a live table.",
        )

        # One container for each entry of models.yaml: preprocessing tasks, models, and post-processing tasks.
        groups = {name: TaskGroup(name, prefix_group_id=False) for name in registry.groups}
        container_tasks = {
            spec.name: ModelOperator(
                task_id=spec.name,
                spec=spec,
                registry=registry,
                submissions=stable.submissions,
                live_dags=stables.dag_ids,
                task_group=groups[spec.group] if spec.group else None,
            )
            for spec in registry
        }

        # The page shows all available results, also of a run in which models failed.
        leaderboard = PythonOperator(
            task_id=task_ids.LEADERBOARD,
            python_callable=tasks.write_leaderboard_page,
            # schedules the DAGs of users that work with the predictions
            outlets=[predictions_asset(dag.dag_id)],
            post_execute=partial(task_reports.after_leaderboard, submissions=stable.submissions),
            execution_timeout=timedelta(minutes=30),
            doc_md="Writes the run's leaderboard as one HTML file into its directory; the menu *Browse* has all runs.",
        )

        # Optional: a user approves the planned submissions, shown with their scores.
        if settings.approve_submissions:
            from numerai_pipeline.dag.approval import SubmissionApproval

            approve = SubmissionApproval(
                task_id=task_ids.APPROVE,
                predictions=registry.predictions,
                models=registry.models,
                submissions=stable.submissions,
                subject="Submit to Numerai?",
                response_timeout=timedelta(hours=settings.approval_hours),
                execution_timeout=timedelta(minutes=30),
                doc_md="Waits for a user's approval of the planned submissions; skipped if there are none.",
            )

        # Predictions are submitted even if other models, or the evaluation, failed: a round does not wait. A submission
        # that fails makes this task fail, and so the run.
        submit = PythonOperator(
            task_id=task_ids.SUBMIT,
            python_callable=submission.submit,
            outlets=[submissions_asset(dag.dag_id)],
            post_execute=task_reports.after_submit,
            op_kwargs={
                "predictions": registry.predictions,
                "models": registry.models,
                "submissions": stable.submissions,
            },
            retry_exponential_backoff=2,
            max_retry_delay=timedelta(minutes=10),
            # Attempts go on until the round closes, or until the next one opens where late predictions are queued.
            execution_timeout=timedelta(days=3),
            doc_md="Uploads the predictions of the live rows and confirms that Numerai accepted them.",
        )

        # Downstream of every container task, so that the state of the run is correct: it fails if any of them failed.
        # Models that were not selected are skipped, not failed.
        exploring = PythonOperator(
            task_id=task_ids.EXPLORING,
            task_display_name="exploring (run summary)",
            python_callable=tasks.summarize_run,
            op_kwargs={"models": registry.models},
            trigger_rule="none_failed_min_one_success",
            execution_timeout=timedelta(minutes=30),
            doc_md="Summarizes the predictions and scores of all models; succeeds only if every task before it did.",
        )

        # Fits that were not ready in time continue. Deferred until one is ready, or until the round closes.
        resubmit = Resubmission(
            task_id=task_ids.RESUBMIT,
            trigger_dag_id=stable.dag_id,
            container_tasks=[spec.name for spec in registry if not spec.is_post_processing],
            submissions=stable.submissions,
            execution_timeout=timedelta(minutes=30),
            doc_md="Starts a run that replaces the submissions when a new fit is ready shortly before the close.",
        )

        wait_for_round >> download >> unzip
        nodes = {task_ids.UNZIP: unzip, **container_tasks}
        models = [container_tasks[name] for name in registry.models]
        post_processing = [container_tasks[name] for name in registry.post_processing]
        gate = ModelGate(models)
        for spec in registry:
            upstream = [nodes[name] for name in registry.upstream(spec.name)]
            if spec.is_post_processing:
                gate.start(container_tasks[spec.name], after=[task for task in upstream if task in post_processing])
            else:
                upstream >> container_tasks[spec.name]
        gate.start(leaderboard, after=post_processing)
        [*models, *post_processing, leaderboard] >> exploring
        if settings.approve_submissions:
            gate.start(approve, after=[leaderboard])
            approve >> submit
        else:
            gate.start(submit, after=[leaderboard])
        [unzip, gate.ended] >> resubmit
        set_task_weights(dag)

        # The parameters of the trigger form. They come last, since Airflow would copy them into every task created
        # after them, and check and store each copy whenever the file is parsed.
        for name, field in form_fields(registry.models, **stable.parameters).items():
            dag.params[name] = Param(**field)
    return dag


# Each process of a task builds the DAG of its task only.
dags = {stable.dag_id: build_dag(stable) for stable in stables.to_build()}
