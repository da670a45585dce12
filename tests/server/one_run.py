"""Runs the DAG once, in a process that can be killed: ``python one_run.py DATE CONF``; prints the state of svm."""

from __future__ import annotations

import json
import sys
from datetime import datetime

from airflow.dag_processing.dagbag import DagBag

from tests.samples import ROOT

if __name__ == "__main__":
    dag = DagBag(ROOT / "dags", bundle_name="dags-folder").dags["numerai_tournament"]
    for task in dag.tasks:
        task.retries = 0
    date = datetime.fromisoformat(sys.argv[1])
    # both determine the run's id, which all attempts of one task share
    run = dag.test(run_conf=json.loads(sys.argv[2]), logical_date=date, run_after=date)
    instance = run.get_task_instance("svm")
    print("svm ended as", instance.state, flush=True)
