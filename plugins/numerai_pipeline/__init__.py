"""The library the ``numerai_tournament`` DAG is made of.

Start at ``dags/numerai_tournament.py``, which reads like the picture of the pipeline; every step it names lives in
``steps.py``. Nothing here imports pandas, numerapi, pyarrow or docker when it is imported: Airflow parses the DAG file
again and again, and those imports belong to the tasks.
"""
