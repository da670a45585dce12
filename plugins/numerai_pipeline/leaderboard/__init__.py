"""The leaderboard: the scores of a run's models as a page in Airflow's web UI and as one HTML file.

``runs.py`` finds runs; ``board.py``, ``searches.py`` and ``maps.py`` convert one to plain data; ``app.py`` serves them
to signed-in users; ``static_page.py`` writes them into the run's directory; ``links.py`` registers the page in Airflow.
The page is in ``web/``: it has no build, loads nothing from other servers, and is the same in both forms.
"""
