"""Fills a new Airflow's database with one run of `dags/played_run.py`; prints its run id on the last line."""

from __future__ import annotations

from pathlib import Path

from airflow.dag_processing.dagbag import DagBag
from airflow.utils.db import initdb

initdb()
bag = DagBag(Path(__file__).parent / "dags", bundle_name="dags-folder")
run = bag.dags["numerai_tournament"].test(logical_date=None)
assert str(run.state) == "success"
print(run.run_id)
