"""The start of the tasks after the models: when all models have ended, if one of them succeeded.

Airflow has no trigger rule for that: ``all_done_min_one_success`` skips a task when a model was not selected, and so
skipped. Two empty tasks make it up. The scheduler itself ends them, without a process or a slot, and a run without a
successful model ends at once, even when other runs use the whole pool.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from airflow.providers.standard.operators.empty import EmptyOperator
from airflow.sdk import TaskGroup, TriggerRule

from numerai_pipeline.core.task_ids import MODEL_SUCCEEDED, MODELS_ENDED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import BaseOperator


class ModelGate:
    """Adds the two empty tasks to the DAG that is being defined.

    Parameters
    ----------
    models : sequence of BaseOperator
        The models of the DAG.

    Attributes
    ----------
    ended : EmptyOperator
        The task that succeeds when all models have ended, in any state.
    """

    def __init__(self, models: Sequence[BaseOperator]) -> None:
        with TaskGroup("all_models", prefix_group_id=False, tooltip="All models have ended, and one has succeeded"):
            self.ended = EmptyOperator(
                task_id=MODELS_ENDED,
                trigger_rule=TriggerRule.ALL_DONE,
                execution_timeout=timedelta(minutes=1),
                doc_md="All models have ended, in any state.",
            )
            self._succeeded = EmptyOperator(
                task_id=MODEL_SUCCEEDED,
                trigger_rule=TriggerRule.ONE_SUCCESS,
                execution_timeout=timedelta(minutes=1),
                doc_md="A model has succeeded. If none does, the tasks downstream do not run.",
            )
        self.ended.set_upstream(list(models))
        self._succeeded.set_upstream(list(models))

    def start(self, task: BaseOperator, after: Sequence[BaseOperator] = ()) -> None:
        """Start a task after the models, and after other such tasks, which may fail.

        Parameters
        ----------
        task : BaseOperator
            Its trigger rule is set here.
        after : sequence of BaseOperator, optional
            Tasks that :meth:`start` was called for. None of them may skip itself, since the task would be skipped, too.
        """
        task.trigger_rule = TriggerRule.ALL_DONE_MIN_ONE_SUCCESS if after else TriggerRule.ALL_SUCCESS
        task.set_upstream([self._succeeded, *(after or [self.ended])])
