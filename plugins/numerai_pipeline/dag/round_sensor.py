"""``wait_for_round``, the first task: it checks stable, parameters and keys; a scheduled run waits for its round."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.sdk.bases.sensor import BaseSensorOperator
from airflow.sdk.exceptions import AirflowFailException, AirflowSensorTimeout

from numerai_pipeline.core.parameters import parse_parameters
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import Stable
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.closed_run import data_of_closed_run
from numerai_pipeline.dag.notifications import MISSED, check_channels
from numerai_pipeline.dag.orphan_cleanup import remove_orphans
from numerai_pipeline.dag.run_dates import BACKFILL, SCHEDULED, run_date, run_type_of
from numerai_pipeline.dag.stables import Stables
from numerai_pipeline.dag.submission import preflight_check
from numerai_pipeline.storage.layout import DataLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk import Context

    from numerai_pipeline.core.parameters import RunParameters

LONGEST_WAIT = timedelta(days=6)
"""Longer than any round can take to open and to close; the next week's run waits behind this one."""


class RoundSensor(BaseSensorOperator):
    """Passes when the run's round is open and the round's live data is available.

    A cleared run whose round has closed passes if it still has its data; without, its round is missed.

    Manual, backfilled and otherwise triggered runs pass at once, as do runs of an archive, which belongs to no open
    round, and runs with a round number.

    It waits in the triggerer, by :class:`numerai_pipeline.dag.round_trigger.RoundTrigger`. A missed round fails the
    task without another attempt.

    Parameters
    ----------
    stable : Stable, optional
        The stable of the DAG; a mistake in its configuration fails the task.
    stables : Stables, optional
        All stables.
    timeout : timedelta, optional
        When to give up if the triggerer does not respond.
    clock : callable, optional
        Gives the present moment; the real one, except in tests.
    **kwargs
        As for every operator.
    """

    def __init__(
        self,
        *,
        stable: Stable = Stable(),  # noqa: B008 - immutable
        stables: Stables | None = None,
        timeout: timedelta = LONGEST_WAIT,
        clock: Callable[[], datetime] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(timeout=timeout, **kwargs)
        self.stable = stable
        self.stables = stables or Stables((self.stable,))
        self._clock = clock

    def pre_execute(self, context: Context) -> None:
        """Remove orphaned containers, as the run needs the machine; log mistakes in the settings of notifications."""
        super().pre_execute(context)
        check_channels()
        with translate_errors():
            remove_orphans(load_settings(), context["ti"])

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Pass, or wait; return the round of a scheduled run: ``round``, ``opens``, ``closes``."""
        dag_run = context["dag_run"]
        with translate_errors():
            self.stables.require_valid(self.stable, load_settings().data_dir)
            parameters = parse_parameters(context["params"])
            if dag_run.run_type != BACKFILL:  # which rarely has anything to submit
                preflight_check(parameters, self.stable.submissions, dag_run.run_type)
            day_opens = run_date(dag_run)
            skip_reason = _skip_reason(parameters, run_type_of(dag_run))
            if skip_reason or day_opens is None or parameters.source == "archive":
                self.log.info("not waiting for a round: %s", skip_reason or "the run has no date")
                return None
            own = data_of_closed_run(DataLayout(load_settings().data_dir), dag_run, (self._clock or _utc_now)())
            if own is not None:
                self.log.info("round %s closed at %s: this run uses its data again", own.round, own.closes)
                return {"round": int(own.round), "opens": None, "closes": own.closes}
            return self._poll_once(context, parameters.source, parameters.version, day_opens)

    def _poll_once(
        self, context: Context, source: Literal["numerai", "practice"], version: str, day_opens: datetime
    ) -> dict[str, Any]:
        from numerai_pipeline.dag.round_trigger import RoundTrigger
        from numerai_pipeline.numerai_api.readiness import round_poller
        from numerai_pipeline.numerai_api.retries import TRANSIENT, utc_now

        poller = round_poller(source, day_opens, version, self._clock or utc_now)
        try:
            status = poller.poll()
        except TRANSIENT as error:
            # the triggerer polls again as long as the server fails; here, each attempt would be one of the task's few
            self.log.warning("the first query failed: %s", error)
        else:
            if status.state != "waiting":
                return self.execute_complete(context, status.to_json())
            self.log.info("%s", status.reason)
        self.log.info("waiting for the round of %s in the triggerer", poller.day)
        return self.defer(
            trigger=RoundTrigger(source, day_opens.isoformat(), version),
            method_name=self.execute_complete.__name__,
            timeout=timedelta(seconds=self.timeout),
        )

    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """Return the round that the trigger found, or fail with the reason; a missed round is the XCom ``missed``."""
        if event["state"] == "missed":
            self._fail_missed(context, event["reason"], event["round"])
        if event["state"] != "ready":
            raise AirflowFailException(event["reason"])
        self.log.info("%s", event["reason"])
        return {name: event[name] for name in ("round", "opens", "closes")}

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after the triggerer, or fail because it did not respond."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except AirflowSensorTimeout as error:
            self.log.debug("%s", error)
            msg = f"missed the round: the triggerer did not respond for {timedelta(seconds=self.timeout)}; check it"
            return self._fail_missed(context, msg)

    def _fail_missed(self, context: Context, reason: str, round_number: int | None = None) -> NoReturn:
        context["ti"].xcom_push(key=MISSED, value={"round": round_number, "reason": reason})
        raise AirflowFailException(reason)


def _utc_now() -> datetime:
    return datetime.now(tz=UTC)


def _skip_reason(parameters: RunParameters, run_type: str) -> str | None:
    """Give the reason why a run passes at once; None when it has to wait."""
    if run_type != SCHEDULED:
        return f"this run was not started by the schedule ({run_type})"
    if parameters.source == "archive":
        return "an archive belongs to no open round"
    if parameters.round is not None:
        return f"the parameter 'round' is {parameters.round}"
    return None
