"""``wait_for_round``, the first task of a run: it checks the choices, and a scheduled run waits here for its round."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk.bases.sensor import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from numerai_pipeline.airflow_words import translate_errors
from numerai_pipeline.errors import NetworkError, ProtocolError
from numerai_pipeline.orphan_cleanup import remove_orphans
from numerai_pipeline.parameters import parse_parameters
from numerai_pipeline.run_dates import BACKFILL, SCHEDULED, run_date
from numerai_pipeline.settings import load_settings
from numerai_pipeline.submission_steps import check_in_advance

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from airflow.sdk import Context

    from numerai_pipeline.parameters import RunParameters

LONGEST_WAIT = timedelta(days=6)
"""Longer than any round can take to open and to close; the next week's run waits behind this one."""


class RoundSensor(BaseSensorOperator):
    """Lets a run go on when its round is open and the round's own live data is there.

    Runs by hand, backfilled runs and those that something else triggered pass at once: they were asked for now. So do
    runs of an archive, which belongs to no open round, and runs of a round that was chosen by its number.

    It waits in the triggerer, by :class:`numerai_pipeline.round_trigger.RoundTrigger`. A round that was missed fails
    the task, without another try: nothing brings it back.

    Parameters
    ----------
    timeout : timedelta, optional
        When to give up if the triggerer never answers.
    clock : callable, optional
        Tells the present moment; the real one unless a test has a time of its own.
    **kwargs
        As for every operator.
    """

    def __init__(
        self, *, timeout: timedelta = LONGEST_WAIT, clock: Callable[[], datetime] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self._clock = clock

    def pre_execute(self, context: Context) -> None:
        """Remove containers for which nobody waits any more: a run needs the machine for its own."""
        super().pre_execute(context)
        with translate_errors():
            remove_orphans(load_settings(), context["ti"])

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Pass, or wait; return the round that was waited for, if there was one."""
        dag_run = context["dag_run"]
        with translate_errors():
            parameters = parse_parameters(context["params"])
            if dag_run.run_type != BACKFILL:  # which hardly ever has something to submit
                check_in_advance(parameters)
            day_opens = run_date(dag_run)
            why_not = _why_not_to_wait(parameters, str(getattr(dag_run.run_type, "value", dag_run.run_type)))
            if why_not or day_opens is None or parameters.source == "archive":
                self.log.info("not waiting for a round: %s", why_not or "the run has no date")
                return None
            return self._first_look(parameters.source, parameters.version, day_opens)

    def _first_look(self, source: Literal["numerai", "practice"], version: str, day_opens: datetime) -> dict[str, Any]:
        from numerai_pipeline.readiness import utc_now, watch_round
        from numerai_pipeline.round_trigger import RoundTrigger

        watch = watch_round(source, day_opens, version, self._clock or utc_now)
        try:
            readiness = watch.look()
        except (NetworkError, ProtocolError) as error:
            # the triggerer has the patience for a server that fails; here, each try would be one of the task's few
            self.log.warning("the first look failed: %s", error)
        else:
            if readiness.state != "waiting":
                return self.execute_complete({}, readiness.to_json())
            self.log.info("%s", readiness.reason)
        self.log.info("waiting for the round of %s in the triggerer", watch.day)
        return self.defer(
            trigger=RoundTrigger(source, day_opens.isoformat(), version),
            method_name=self.execute_complete.__name__,
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, _context: Context | Mapping[str, Any], event: Mapping[str, Any]) -> dict[str, Any]:
        """Go on with what the trigger found: the round, or why there is none."""
        if event["state"] != "ready":
            raise AirflowFailException(event["reason"])
        self.log.info("%s", event["reason"])
        return {name: event[name] for name in ("round", "opens", "closes")}

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the triggerer, or say that it never answered."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSensorTimeout as error:
            msg = (
                f"missed the round: the triggerer did not answer for {timedelta(seconds=self.timeout)}; is it running?"
            )
            raise AirflowFailException(msg) from error


def _why_not_to_wait(parameters: RunParameters, run_type: str) -> str | None:
    """Say why a run passes at once; None when it has to wait."""
    if run_type != SCHEDULED:
        return f"this run was not started by the schedule ({run_type})"
    if parameters.source == "archive":
        return "an archive belongs to no open round"
    if parameters.round is not None:
        return f"round {parameters.round} was chosen by its number"
    return None
