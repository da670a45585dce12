"""From raw files to the run's two tables: start at ``dataset.py``."""
