"""What tasks report after they have succeeded: metrics, and the events of the stable's assets.

Airflow calls these functions as ``post_execute`` of the DAG's PythonOperators. None of them fails its task, whose work
is done.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.parameters import parse_parameters
from numerai_pipeline.core.task_ids import DOWNLOAD
from numerai_pipeline.dag import metrics
from numerai_pipeline.dag.assets import predictions_asset, run_facts, run_layout, submission_records, submissions_asset
from numerai_pipeline.leaderboard.run_view import read_scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk import Context

    from numerai_pipeline.core.stables import Submissions

log = logging.getLogger(__name__)


def after_download(context: Context, result: Mapping[str, Any]) -> None:
    """Report the round."""
    with _errors_logged("the round"):
        metrics.report_round(context, result["round"])


def after_leaderboard(context: Context, result: object, submissions: Submissions) -> None:  # noqa: ARG001 - of Airflow
    """Report the scores, and describe the run in the event of its predictions."""
    with _errors_logged("the predictions"):
        layout = run_layout(context)
        scores = read_scores(layout)
        metrics.report_scores(context, scores)
        asset = predictions_asset(context["ti"].dag_id)
        submits = submissions.is_submitting(parse_parameters(context["params"]), context["dag_run"].run_type)
        records = submission_records(layout)
        context["outlet_events"][asset].extra = run_facts(context, scores, records, submits=submits)


def after_submit(context: Context, result: Mapping[str, Any]) -> None:
    """Report the time that was left, and describe the run in the event of its submissions."""
    with _errors_logged("the submissions"):
        records = result["submissions"]
        closes = (context["ti"].xcom_pull(task_ids=DOWNLOAD) or {}).get("closes")
        metrics.report_submissions(context, closes, records)
        asset = submissions_asset(context["ti"].dag_id)
        scores = read_scores(run_layout(context))
        context["outlet_events"][asset].extra = run_facts(context, scores, records, submits=True)


@contextmanager
def _errors_logged(subject: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a report never fails the task
        log.warning("metrics and event of %s are incomplete: %r", subject, error)
