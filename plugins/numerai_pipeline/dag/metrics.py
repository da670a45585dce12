"""Gauges about runs, by Airflow's own metrics: StatsD, OpenTelemetry or Datadog, as ``[metrics]`` configures it.

========================================  ==========================================================  ==================
gauge                                     value                                                       labels
========================================  ==========================================================  ==================
``numerai.round``                         the round whose data was downloaded                         stable, run_type
``numerai.corr``                          mean CORR of a model or an ensemble, as on the leaderboard  … and model
``numerai.submission.minutes_to_close``   minutes from the last confirmed submission to the close     stable, run_type
``numerai.task.minutes_to_close``         minutes left when a container task ended                    … and task
``numerai.task.seconds``                  seconds that its container worked, by the container's       … and task
                                          report
``numerai.task.peak_memory_mib``          peak memory of its main process, MiB, by the same report    … and task
========================================  ==========================================================  ==================

Labels are tags. Plain StatsD has none, so there they follow the name: ``numerai.corr.tournament.scheduled.svm``. A task
never fails because of a metric.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.configuration import conf
from airflow.sdk.observability import stats

from numerai_pipeline.dag.assets import stable_of
from numerai_pipeline.dag.run_dates import run_type_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Context

log = logging.getLogger(__name__)


def report_round(context: Context, round_name: object) -> None:
    """Report the number of a run's round; archives without a number have none."""
    if str(round_name).isdecimal():
        _gauge(context, "round", int(str(round_name)))


def report_scores(context: Context, scores: Mapping[str, float | None]) -> None:
    """Report the mean CORR of each model and ensemble, name → CORR."""
    for model, corr in scores.items():
        _gauge(context, "corr", corr, model=model)


def report_submissions(context: Context, closes: str | None, records: Mapping[str, Mapping[str, Any]]) -> None:
    """Report how long before the close the last submission was confirmed; negative after the close."""
    confirmed = [datetime.fromisoformat(record["at"]) for record in records.values() if record["round"] is not None]
    if closes is not None and confirmed:
        _gauge(context, "submission.minutes_to_close", _minutes(max(confirmed), closes))


def report_container(context: Context, task: str, report: Mapping[str, float | None]) -> None:
    """Report what a container needed: ``seconds`` and ``peak_memory_mib`` of its report."""
    for name, value in report.items():
        _gauge(context, f"task.{name}", value, task=task)


def report_task_end(context: Context, task: str, closes: str | None) -> None:
    """Report the minutes that are left before the round's close when a container task has its results."""
    if closes is not None:
        _gauge(context, "task.minutes_to_close", _minutes(datetime.now(tz=UTC), closes), task=task)


def _minutes(moment: datetime, closes: str) -> float:
    return (datetime.fromisoformat(closes) - moment).total_seconds() / 60


def _gauge(context: Context, name: str, value: float | None, **labels: str) -> None:
    if value is None:
        return
    try:
        tags = {"stable": stable_of(context["ti"].dag_id), "run_type": run_type_of(context["dag_run"]), **labels}
        if _has_tags():
            stats.gauge(f"numerai.{name}", value, tags=tags)
        else:
            stats.gauge(".".join([f"numerai.{name}", *map(stats.normalize_name_for_stats, tags.values())]), value)
    except Exception as error:  # noqa: BLE001 - of any metrics library
        log.warning("numerai.%s is not reported: %s", name, error)


def _has_tags() -> bool:
    """Whether the configured metrics system, in Airflow's order of precedence, has tags."""
    if conf.getboolean("metrics", "statsd_datadog_enabled"):
        return bool(conf.getboolean("metrics", "statsd_datadog_metrics_tags", fallback=True))
    is_plain = conf.getboolean("metrics", "statsd_on") and not conf.getboolean("metrics", "statsd_influxdb_enabled")
    return not is_plain
