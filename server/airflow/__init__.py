"""Programs inside Airflow's image beside Airflow itself; they import only the standard library and Airflow."""
