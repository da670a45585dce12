"""The pipeline's DAG with a task of the stock operator after each container task of its own; Airflow reads it."""

from __future__ import annotations

from numerai_tournament import dag, leaderboard, models  # type: ignore[import-not-found]  # beside it, in Airflow
from stock_dag import stock_task  # type: ignore[import-not-found]

# what any task of this pipeline has to be told: where its run's files are
STORING = "{{ ti.xcom_pull(task_ids='unzip')['directory'] }}"

ours = list(models.values())

with dag:
    # one after the other, so that none of them shares the machine with another
    for model, after in zip(ours, [*ours[1:], leaderboard], strict=True):
        told, predicting = model.environment, f"/data/{{{{ run_id }}}}-{model.task_id}.csv"
        beside = stock_task(f"stock_{model.task_id}", told["IDS"], told["TICKS"], predicting, STORING=STORING)
        model >> beside >> after
