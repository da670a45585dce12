"""The library of the tournament's DAGs, ``numerai_tournament`` and one for each further stable.

Start at ``dags/numerai_tournament.py``: its tasks are functions of ``dag/tasks.py`` and ``dag/submission.py``, or a
``ModelOperator`` each. Modules that the DAG file imports do not import pyarrow, pandas or numerapi, since Airflow
parses DAG files repeatedly: these libraries are imported by the running tasks (``dataset``, ``numerai_api``).
"""
