"""The pipeline's DAG with a task of the stock operator after each container task of its own; Airflow reads it."""

from __future__ import annotations

from numerai_tournament import container_tasks, dag, leaderboard  # type: ignore[import-not-found]  # beside it, in Airflow
from stock_dag import stock_task  # type: ignore[import-not-found]

# every task of this pipeline has to get the path of its run's files
STORING = "{{ ti.xcom_pull(task_ids='unzip')['directory'] }}"

ours = list(container_tasks.values())

with dag:
    # one after the other, so that none of them shares the machine with another
    for model, after in zip(ours, [*ours[1:], leaderboard], strict=True):
        variables, predicting = model.environment, f"/data/{{{{ run_id }}}}-{model.task_id}.csv"
        beside = stock_task(f"stock_{model.task_id}", variables["IDS"], variables["TICKS"], predicting, STORING=STORING)
        model >> beside >> after
