"""The library the ``numerai_tournament`` DAG is made of.

Start at ``dags/numerai_tournament.py``, which reads like the picture of the pipeline; every step it names lives in
``steps.py``. What the DAG file imports from here imports nothing heavy itself: Airflow parses DAG files again and
again, and pyarrow, numerapi and docker belong to the tasks (``unpacking``, ``tournament.py``, ``model_operator.py``).
"""
