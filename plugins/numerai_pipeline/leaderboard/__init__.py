"""The leaderboard: what the models of a run are worth, as a page inside Airflow's web UI and as one HTML file.

``runs.py`` finds runs, ``board.py``, ``searches.py`` and ``maps.py`` read one into plain data, ``app.py`` serves them
to signed-in users, ``static_page.py`` writes them into the run's directory, and ``links.py`` tells Airflow where they
are. The page itself is in ``web/``: it needs no build, asks no other server for anything, and is the same in both.
"""
