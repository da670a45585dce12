"""The server of the simulated tournament, beside Airflow: rounds without an account or a network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from launcher.errors import LauncherError
from launcher.processes import tail, wait_until
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.core.stables import listed_submissions
from numerai_pipeline.models.registry import load_registry

if TYPE_CHECKING:
    from launcher.console import Step
    from launcher.paths import ProjectPaths
    from launcher.processes import Services

SERVICE = "practice"
READY = "simulator ready at "
# the first start generates the season's data
READY_SECONDS = 600.0
STOP_SECONDS = 4.0
# No secret: the account exists only in the simulator on this machine.
PUBLIC_ID, KEY = "PRACTICE-ACCOUNT", "key-of-the-practice-account"


def address(port: int) -> str:
    """Address of a simulator of this machine."""
    return f"http://127.0.0.1:{port}"


def standings(port: int) -> str:
    """Address of the page with the simulated tournament's standings."""
    return f"{address(port)}/practice/standings"


def models(paths: ProjectPaths) -> list[str]:
    """List the models of the simulated account: ours, the ensembles, and the ones in the submissions."""
    settings = load_settings()
    submitted = [*settings.submissions, *listed_submissions(settings.stables)]
    return list(dict.fromkeys([*load_registry(paths.images_dir).predictions, *submitted]))


def start(services: Services, paths: ProjectPaths, step: Step, *, port: int, owner: str, calendar: str) -> None:
    """Start the server and wait until it is ready.

    Raises
    ------
    LauncherError
        With the end of its log when it does not start.
    """
    log = paths.logs / "practice.log"
    season = paths.cache / "practice-season"
    step.update("starting" if season.exists() else "generating its data (once)")
    command = [sys.executable, "-m", "practice", "--port", str(port), "--season-dir", str(season)]
    record = services.start(
        SERVICE,
        [*command, "--calendar", calendar, "--account", f"{PUBLIC_ID}:{KEY}", "--models", ",".join(models(paths))],
        owner=owner,
        log=log,
        cwd=paths.root,
        env={"PYTHONUNBUFFERED": "1"},
    )

    def is_decided() -> bool:
        return READY in log.read_text(errors="replace") or services.exit_code(record) is not None

    if not wait_until(is_decided, READY_SECONDS, every=0.1) or READY not in log.read_text(errors="replace"):
        services.stop(SERVICE, grace=STOP_SECONDS)
        msg = "the simulated tournament did not start"
        raise LauncherError(msg, tail(log.read_text(errors="replace"), 20), f"The full log: {log}")
    step.done(address(port))
