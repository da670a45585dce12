"""The library the ``numerai_tournament`` DAG is made of.

Start at ``dags/numerai_tournament.py``, which reads like the picture of the pipeline; every step it names lives in
``steps.py``. Modules that the DAG file imports have no heavy imports, since Airflow parses DAG files again and
again: pyarrow, numerapi and docker are imported in tasks.
"""
