"""``deadline``, the task that notifies when a round closes soon and nothing is submitted for it.

Airflow's deadline alerts are set when a run is created, before its round opens: its close is not known then. This task
waits in Airflow's triggerer, without a slot, until ``submit`` has ended. At the moment of the alarm the scheduler ends
the wait, also if the triggerer does not respond.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowSkipException, TaskDeferralTimeout
from airflow.utils.state import State

from numerai_pipeline.core.errors import BadInputError, NotFoundError, RoundClosedError
from numerai_pipeline.core.parameters import parse_parameters
from numerai_pipeline.core.settings import load_notification_settings, load_settings
from numerai_pipeline.core.task_ids import DEADLINE, SUBMIT, WAIT_FOR_ROUND
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.notifications import deadline_near
from numerai_pipeline.dag.run_dates import BACKFILL, run_date

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from numerai_pipeline.core.parameters import RunParameters
    from numerai_pipeline.core.stables import Submissions

POLL_SECONDS = 10.0


def _now() -> datetime:
    return datetime.now(tz=UTC)


class DeadlineAlarm(BaseOperator):
    """Sends the event ``deadline`` some minutes before the round's close, if ``submit`` has not ended by then.

    Skipped in a run that does not submit, and when the round is closed already.

    Parameters
    ----------
    submissions : Submissions
        The submissions of the DAG's stable.
    clock : callable, optional
        Gives the present moment; the real one, except in tests.
    **kwargs
        As for every operator.
    """

    def __init__(self, *, submissions: Submissions, clock: Callable[[], datetime] = _now, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.submissions = submissions
        self._clock = clock

    @translate_errors()
    def execute(self, context: Context) -> None:
        """Wait until ``submit`` ends, or until the alarm."""
        from airflow.providers.standard.triggers.external_task import WorkflowTrigger

        try:
            margin = timedelta(minutes=load_notification_settings().alarm_minutes)
        except BadInputError as error:  # `wait_for_round` has logged it
            raise AirflowSkipException(str(error)) from None
        closes = self._close_time(context)
        if closes <= self._clock():
            msg = f"the round closed at {closes:%a %Y-%m-%d %H:%M} UTC"
            raise AirflowSkipException(msg)
        remaining = closes - margin - self._clock()
        if remaining <= timedelta():
            self.alarm(context)
            return
        self.log.info("alarm at %s UTC, unless `%s` has ended by then", f"{closes - margin:%a %Y-%m-%d %H:%M}", SUBMIT)
        trigger = WorkflowTrigger(
            external_dag_id=self.dag_id,
            external_task_ids=[SUBMIT],
            run_ids=[context["run_id"]],
            allowed_states=sorted(map(str, State.finished)),
            poke_interval=POLL_SECONDS,
        )
        self.defer(trigger=trigger, method_name=self.submit_ended.__name__, timeout=remaining)

    def submit_ended(self, context: Context, event: Any = None) -> None:
        """End: its own failure, if any, was notified by ``submit``."""

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after ``submit`` has ended, or at the moment of the alarm."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except TaskDeferralTimeout:
            return self.alarm(context)

    def alarm(self, context: Context) -> None:
        """Notify, unless ``submit`` has ended."""
        run = context["run_id"]
        states = context["ti"].get_task_states(dag_id=self.dag_id, run_ids=[run]).get(run, {})
        if states.get(SUBMIT) in State.finished:
            return
        failed = sorted(name for name, state in states.items() if state == "failed")
        # a task that waits for others has no state
        unfinished = sorted(name for name, state in states.items() if state not in State.finished and name != DEADLINE)
        closes = self._close_time(context)
        self.log.error("the round closes at %s UTC, and nothing is submitted", f"{closes:%a %Y-%m-%d %H:%M}")
        deadline_near(context, closes, failed, unfinished)

    def _close_time(self, context: Context) -> datetime:
        """Return when the run's round closes: as ``wait_for_round`` found it, or as the server answers."""
        parameters = parse_parameters(context["params"])
        dag_run = context["dag_run"]
        submits = self.submissions.is_submitting(parameters, dag_run.run_type)
        if not submits or parameters.source == "archive" or dag_run.run_type == BACKFILL:
            msg = "this run does not submit"
            raise AirflowSkipException(msg)
        found = context["ti"].xcom_pull(task_ids=WAIT_FOR_ROUND) or {}
        if found.get("closes"):
            return datetime.fromisoformat(found["closes"])
        return _query_close_time(parameters, run_date(dag_run))


def _query_close_time(parameters: RunParameters, date: datetime | None) -> datetime:
    from numerai_pipeline.numerai_api.client import ApiClient
    from numerai_pipeline.numerai_api.retries import RetryPolicy
    from numerai_pipeline.numerai_api.tournament import Tournament

    settings = load_settings()
    address = settings.api_address("practice" if parameters.source == "practice" else "numerai")
    client = ApiClient(address, timeout=settings.http_timeout_seconds, policy=RetryPolicy())
    try:
        return Tournament(client).required_round(parameters.round, date).close_time
    except (NotFoundError, RoundClosedError) as error:  # `download` fails with it
        raise AirflowSkipException(str(error)) from None
