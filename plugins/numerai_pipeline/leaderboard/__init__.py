"""Leaderboard of a run, as one HTML file and for the web UI.

Entry points: ``page`` and ``static_page``. Allowed imports: ``core``, ``storage``.
"""
