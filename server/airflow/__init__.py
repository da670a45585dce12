"""What runs inside Airflow's image beside Airflow itself; only Python's own library is imported here."""
