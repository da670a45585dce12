"""Airflow's side: operators, sensors, timetables, notifications and the functions of the DAG's PythonOperators.

Entry point: ``dags/numerai_tournament.py`` builds the DAG from these. This is the only package that imports Airflow; it
may import all others.
"""
