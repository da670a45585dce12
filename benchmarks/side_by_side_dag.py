"""The pipeline's DAG with a task of the stock operator after each container task; Airflow parses this file."""

from __future__ import annotations

from numerai_tournament import dags  # type: ignore[import-not-found]  # beside it, in Airflow
from stock_dag import stock_task  # type: ignore[import-not-found]

from numerai_pipeline.dag.model_operator import ModelOperator

# the directory of the run's files, which every task of this pipeline needs
STORING = "{{ ti.xcom_pull(task_ids='unzip')['directory'] }}"

dag = dags["numerai_tournament"]
ours = [task for task in dag.tasks if isinstance(task, ModelOperator)]
leaderboard = dag.get_task("leaderboard")

with dag:
    # in sequence, so that no two tasks share the machine
    for model, following in zip(ours, [*ours[1:], leaderboard], strict=True):
        variables, predicting = model.environment, f"/data/{{{{ run_id }}}}-{model.task_id}.csv"
        stock = stock_task(f"stock_{model.task_id}", variables["IDS"], variables["TICKS"], predicting, STORING=STORING)
        model >> stock >> following
