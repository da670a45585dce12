"""The launcher behind ``make``: sets up what the pipeline needs, starts it, follows it, and takes it all down again.

A reader's path: ``__main__`` (the commands) → ``run`` (one run from nothing to predictions) → ``engine``,
``base_images``, ``images``, ``practice_season``, ``airflow_home`` (the set-up) → ``airflow_api`` and ``follow`` (the
run itself) → ``processes`` and ``signals`` (how everything is stopped). A server for a team is ``server`` (with
``compose``, ``server_settings``, ``server_images``, ``server_backup``) and ``worker``.
"""

from __future__ import annotations

import sys

from launcher.checkout import ROOT

# Airflow puts the plugins folder on its path; the launcher shares the pipeline's library with it
if str(ROOT / "plugins") not in sys.path:
    sys.path.insert(0, str(ROOT / "plugins"))
