"""Which task gets a free slot of the models' pool, or of the executor, first.

Scheduled runs come before manual ones, and these before backfilled ones. Within a run, the tasks after the models come
first, the nearest to ``submit`` before the others, and then the tasks with the longest chain of tasks behind them:
``adversarial_validation`` and ``tsne`` before the models.

Airflow computes a task's weight when it creates or clears a run. A backfill that reprocesses a scheduled run keeps the
run's id, and so its rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.task.priority_strategy import PriorityWeightStrategy
from airflow.utils.types import DagRunType

from numerai_pipeline.core.task_ids import DEADLINE, MODEL_SUCCEEDED, MODELS_ENDED

if TYPE_CHECKING:
    from airflow.models.taskinstance import TaskInstance
    from airflow.sdk import DAG

RUN_WEIGHTS = {DagRunType.SCHEDULED: 30_000, DagRunType.MANUAL: 20_000, DagRunType.BACKFILL_JOB: 10_000}
"""Weight of a run's type; the types that are not listed have that of manual runs."""
AFTER_MODELS = 1_000
"""Weight within a run of its last task, more than that of any task before the models."""


class RunTypePriority(PriorityWeightStrategy):
    """Adds the weight of the run's type to that of the task within its run.

    The type is a part of the run's id: a task instance that Airflow has not stored yet has no run.
    """

    def get_weight(self, ti: TaskInstance) -> int:
        """Return the weight: positive, below 31,001."""
        run_type = DagRunType.from_run_id(ti.run_id)
        weight: int = RUN_WEIGHTS.get(run_type, RUN_WEIGHTS[DagRunType.MANUAL]) + ti.task.priority_weight  # type: ignore[union-attr]
        return weight


def set_task_weights(dag: DAG) -> None:
    """Set each task's weight within its run, by its place in the graph; call it when all edges exist."""
    chains: dict[str, int] = {}
    for task in reversed(dag.topological_sort()):  # type: ignore[no-untyped-call]
        chains[task.task_id] = 1 + max((chains[name] for name in task.downstream_task_ids), default=0)
    after_models = {DEADLINE, MODELS_ENDED, MODEL_SUCCEEDED}
    for name in (MODELS_ENDED, MODEL_SUCCEEDED):
        after_models |= dag.get_task(name).get_flat_relative_ids(upstream=False)
    for task in dag.tasks:
        chain = chains[task.task_id]
        task.priority_weight = AFTER_MODELS - chain if task.task_id in after_models else chain
