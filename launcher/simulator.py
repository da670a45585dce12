"""The server of the simulated tournament, beside Airflow: rounds without an account or a network."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from launcher.errors import LauncherError
from launcher.processes import tail, wait_until
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import listed_submissions
from numerai_pipeline.models.registry import load_registry

if TYPE_CHECKING:
    from launcher.context import CommandContext
    from launcher.paths import ProjectPaths

SERVICE = "practice"
READY = "simulator ready at "
# the first start generates the season's data
READY_SECONDS = 600.0
# No secret: the account exists only in the simulator on this machine.
PUBLIC_ID, KEY = "PRACTICE-ACCOUNT", "key-of-the-practice-account"


def address(port: int) -> str:
    """Address of a simulator of this machine."""
    return f"http://127.0.0.1:{port}"


def url(port: int) -> str:
    """Address of the simulator in NUMERAI_PRACTICE_URL, else of the one of this machine."""
    return os.environ.get("NUMERAI_PRACTICE_URL") or address(port)


def standings(port: int) -> str:
    """Address of the page with the simulated tournament's standings."""
    return f"{address(port)}/practice/standings"


def models(paths: ProjectPaths) -> list[str]:
    """List the models of the simulated account: ours, the ensembles, and the ones in the submissions."""
    settings = load_settings()
    submitted = [*settings.submissions, *listed_submissions(settings.stables)]
    return list(dict.fromkeys([*load_registry(paths.images_dir).predictions, *submitted]))


def start(context: CommandContext, *, port: int, owner: str, calendar: str) -> None:
    """Start the server and wait until it is ready; the error has the end of its log."""
    services, paths = context.services, context.paths
    log, season = paths.logs / "practice.log", paths.cache / "practice-season"
    with context.screen.step("Simulator") as step:
        step.update("starting" if season.exists() else "generating its data (once)")
        command = [sys.executable, "-m", "practice", "--port", str(port), "--season-dir", str(season)]
        command += ["--calendar", calendar, "--account", f"{PUBLIC_ID}:{KEY}", "--models", ",".join(models(paths))]
        environment = {"PYTHONUNBUFFERED": "1"}
        record = services.start(SERVICE, command, owner=owner, log=log, cwd=paths.root, env=environment)

        def is_ready() -> bool:
            return READY in log.read_text(errors="replace")

        wait_until(lambda: is_ready() or services.exit_code(record) is not None, READY_SECONDS, every=0.1)
        if not is_ready():
            services.stop(SERVICE, grace=4.0)
            end = tail(log.read_text(errors="replace"), 20)
            raise LauncherError("the simulated tournament did not start", end, f"The full log: {log}")
        step.done(address(port))
