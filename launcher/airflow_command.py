"""``make airflow``: Airflow's own command line, with the settings of the Airflow that ``make up`` keeps running."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import local_airflow, simulator
from launcher.errors import LauncherError, UsageError

if TYPE_CHECKING:
    from launcher.context import CommandContext
    from launcher.options import Options


def airflow(context: CommandContext, options: Options) -> int:
    """Run ``airflow`` with the arguments given in ARGS; returns its exit code.

    Raises
    ------
    UsageError
        When there are none, or their quoting is broken.
    LauncherError
        When no Airflow runs in the background.
    """
    try:
        arguments = shlex.split(options.arguments)
    except ValueError as error:
        msg = f"ARGS={options.arguments}: {error}"
        raise UsageError(msg) from None
    if not arguments:
        msg = "ARGS is empty: it needs the arguments of airflow"
        example = "backfill create --dag-id numerai_tournament --from-date 2026-06-01 --to-date 2026-08-01 --dry-run"
        raise UsageError(msg, f'Such as: make airflow ARGS="{example}"')
    background = context.background_airflow()
    if background is None:
        msg = "no Airflow runs in the background of this checkout"
        raise LauncherError(msg, "Start it first: make up")
    environment = local_airflow.airflow_environment(
        context.paths,
        port=background.port,
        practice_url=os.environ.get("NUMERAI_PRACTICE_URL") or simulator.address(background.practice_port),
        scheduled=True,
    )
    program = Path(sys.executable).with_name("airflow")
    return subprocess.run([program, *arguments], env=os.environ | environment, check=False).returncode
