"""The pipeline's DAG with a task of the stock operator after each container task of its own; Airflow reads it."""

from __future__ import annotations

from numerai_tournament import dag, leaderboard, models  # type: ignore[import-not-found]  # beside it, in Airflow
from stock_dag import stock_task  # type: ignore[import-not-found]

IDS = ",".join(f"n{number:04d}" for number in range(200))
# what any task of this pipeline has to be told: where its run's files are
STORING = "{{ ti.xcom_pull(task_ids='unzip')['directory'] }}"

with dag:
    # one after the other, so that none of them shares the machine with another
    follows = [*list(models.values())[1:], leaderboard]
    for model, after in zip(list(models.values()), follows, strict=True):
        predicting = f"/data/{{{{ run_id }}}}-{model.task_id}.csv"
        beside = stock_task(f"stock_{model.task_id}", IDS, "1", predicting, STORING=STORING)
        model >> beside >> after
