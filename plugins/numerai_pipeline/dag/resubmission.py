"""``resubmit``, the task that has a run submitted again when a new fit becomes ready shortly before the round closes.

``submit`` submits the predictions that are ready ``NUMERAI_FALLBACK_MINUTES`` before the close; fits that are not ready
by then continue. This task waits for them in Airflow's triggerer, without a slot. When one is ready, it starts another
run of the same round: that finds everything but this fit's predictions finished, and replaces the submissions.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk.exceptions import AirflowSkipException
from airflow.triggers.base import BaseTrigger, TriggerEvent

from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.submission import plan_submission
from numerai_pipeline.storage.continuing_fits import continuing_fits
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.run_metadata import RunMetadata

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from airflow.sdk import Context

    from numerai_pipeline.core.stables import Submissions
    from numerai_pipeline.dag.submission import SubmissionPlan

POLL_SECONDS = 10.0
TIME_TO_SUBMIT = timedelta(minutes=5)
"""Time that the other run gets: predictions, ensembles and uploads."""


class LateFitTrigger(BaseTrigger):
    """Fires when the continuing fit of a dataset is ready, or at a moment.

    Parameters
    ----------
    tasks : sequence of str
        The tasks whose fits are waited for.
    dataset : str
        Key of the dataset.
    until : str
        The moment, ISO 8601.
    """

    def __init__(self, tasks: Sequence[str], dataset: str, until: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.tasks = list(tasks)
        self.dataset = dataset
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the arguments to build it again, here or in another triggerer."""
        return f"{LateFitTrigger.__module__}.{LateFitTrigger.__qualname__}", {
            "tasks": self.tasks,
            "dataset": self.dataset,
            "until": self.until,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the data volume, then fire once with the names of the tasks whose fits are ready in time."""
        data, until = DataLayout(load_settings().data_dir), datetime.fromisoformat(self.until)
        ready: list[str] = []
        while not ready and datetime.now(tz=UTC) < until:
            ready = await asyncio.to_thread(_ready_fits, data, self.tasks, self.dataset)
            if not ready:
                await asyncio.sleep(POLL_SECONDS)
        yield TriggerEvent({"ready": ready})  # type: ignore[no-untyped-call]


def _ready_fits(data: DataLayout, tasks: Sequence[str], dataset: str) -> list[str]:
    fits = [fit.info for task in tasks for fit in continuing_fits(data, task) if fit.info.dataset == dataset]
    return [info.task for info in fits if Workspace(data.work(info.task, info.key), {}).has_fit]


class Resubmission(TriggerDagRunOperator):
    """Starts another run of the same round when a fit is ready that this run could not wait for.

    Skipped in a run that does not submit, and when no fit continues or none is ready in time.

    Parameters
    ----------
    container_tasks : sequence of str
        The tasks that may have such fits.
    submissions : Submissions
        Those of the stable.
    **kwargs
        As for every operator.
    """

    def __init__(self, *, container_tasks: Sequence[str], submissions: Submissions, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.container_tasks = list(container_tasks)
        self.submissions = submissions

    @translate_errors()
    def execute(self, context: Context) -> None:
        """Wait until a fit is ready."""
        plan = self._plan(context)
        dataset = RunMetadata.read(plan.layout).dataset
        data = DataLayout(load_settings().data_dir)
        waiting = [
            task
            for task in self.container_tasks
            if any(fit.info.dataset == dataset and fit.is_in_time for fit in continuing_fits(data, task))
        ]
        if not waiting:
            msg = "no fit of this run continues"
            raise AirflowSkipException(msg)
        until = plan.closes - TIME_TO_SUBMIT if plan.closes else datetime.now(tz=UTC)
        self.log.info("waiting for new fits of %s, until %s", ", ".join(waiting), until)
        trigger = LateFitTrigger(waiting, dataset, until.isoformat())
        self.defer(trigger=trigger, method_name=self.start_run.__name__)

    @translate_errors()
    def start_run(self, context: Context, event: dict[str, Any]) -> None:
        """Start the other run, if a fit is ready."""
        if not event["ready"]:
            msg = f"no new fit was ready {TIME_TO_SUBMIT.total_seconds() / 60:g} minutes before the round's close"
            raise AirflowSkipException(msg)
        plan = self._plan(context)
        self.log.info("ready: %s; another run of round %d uses it", ", ".join(event["ready"]), plan.round)
        self.conf = {**dict(context["params"]), "round": plan.round, "submit": True, "replace": True, "force": False}
        super().execute(context)

    def _plan(self, context: Context) -> SubmissionPlan:
        return plan_submission(context["params"], context["dag_run"], context["ti"], self.submissions)
