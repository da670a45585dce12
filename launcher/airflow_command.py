"""``make airflow``: Airflow's own command line, with the settings of the Airflow that ``make up`` keeps running."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import airflow_home, practice_season
from launcher.errors import LauncherError, UsageError

if TYPE_CHECKING:
    from launcher.knobs import Knobs
    from launcher.session import Session


def airflow(session: Session, knobs: Knobs) -> int:
    """Run ``airflow`` with the arguments given in ARGS; returns its exit code.

    Raises
    ------
    UsageError
        When there are none, or they cannot be told apart.
    LauncherError
        When no Airflow is kept running, or it works with another data volume.
    """
    try:
        words = shlex.split(knobs.arguments)
    except ValueError as error:
        msg = f"ARGS={knobs.arguments}: {error}"
        raise UsageError(msg) from None
    if not words:
        msg = "ARGS is empty: what should airflow do?"
        example = "backfill create --dag-id numerai_tournament --from-date 2026-06-01 --to-date 2026-08-01 --dry-run"
        raise UsageError(msg, f'Such as: make airflow ARGS="{example}"')
    kept_up = session.kept_up()
    if kept_up is None:
        msg = "no Airflow is kept running in this checkout"
        raise LauncherError(msg, "Start it first: make up")
    environment = airflow_home.airflow_environment(
        session.checkout,
        port=kept_up.port,
        practice_url=os.environ.get("NUMERAI_PRACTICE_URL") or practice_season.address(kept_up.practice_port),
        scheduled=True,
    )
    program = Path(sys.executable).with_name("airflow")
    return subprocess.run([program, *words], env=os.environ | environment, check=False).returncode
