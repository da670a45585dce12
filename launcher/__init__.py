"""The launcher behind ``make``: sets up the pipeline's requirements, starts it, monitors it, stops everything.

Reading order: ``__main__`` (the commands) and ``options`` → ``context`` (the lifecycle of every command) → ``run`` (one
run from an empty machine to predictions) and ``up`` → ``engine``, ``base_images``, ``images``, ``simulator``,
``local_airflow`` (the set-up) → ``airflow_api`` and ``run_monitor`` (the run itself) → ``processes`` and ``signals``
(how everything is stopped). A server for a team is ``server`` (with ``compose``, ``server_settings``,
``server_images``, ``server_backup``) and ``worker``. Any function may raise a LauncherError, which names the remedy.
"""

from __future__ import annotations

import sys

from launcher.paths import ROOT

# Airflow puts the plugins folder on its path; the launcher shares the pipeline's library with it
if str(ROOT / "plugins") not in sys.path:
    sys.path.insert(0, str(ROOT / "plugins"))
