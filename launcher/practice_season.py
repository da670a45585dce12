"""The practice season's server, beside Airflow: rounds to try things on, without an account or a network."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import httpx

from launcher.errors import LauncherError
from launcher.processes import end_of, wait_until
from numerai_pipeline.model_registry import load_registry
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from launcher.checkout import Checkout
    from launcher.console import Step
    from launcher.processes import Services

SERVICE = "practice"
READY = "simulator ready at "
# the first start generates the season's data
READY_SECONDS = 600.0
STOP_SECONDS = 4.0
# No secret: the account is made up, and good for nothing but the season's server on this machine.
PUBLIC_ID, KEY = "PRACTICE-ACCOUNT", "key-of-the-practice-account"


def address(port: int) -> str:
    """Address of a practice server of ours."""
    return f"http://127.0.0.1:{port}"


def standings(port: int) -> str:
    """Address of the page with the season's standings."""
    return f"{address(port)}/practice/standings"


def answers(url: str) -> bool:
    """Whether something speaks HTTP at an address."""
    try:
        httpx.get(url, timeout=2)
    except httpx.HTTPError:
        return False
    return True


def models(checkout: Checkout) -> list[str]:
    """Name the models of the practice account: ours and their ensembles, and those that NUMERAI_SUBMISSIONS names."""
    return list(dict.fromkeys([*load_registry(checkout.images_dir).predictions, *load_settings().submissions]))


def start(services: Services, checkout: Checkout, step: Step, *, port: int, owner: str) -> None:
    """Start the server and wait until it says that it is ready.

    Raises
    ------
    LauncherError
        With the end of its log when it does not come up.
    """
    log = checkout.logs / "practice.log"
    season = checkout.cache / "practice-season"
    step.update("preparing a season of rounds" if season.exists() else "generating a season of rounds (once)")
    command = [sys.executable, "-m", "practice", "--port", str(port), "--season-dir", str(season)]
    record = services.start(
        SERVICE,
        [*command, "--account", f"{PUBLIC_ID}:{KEY}", "--models", ",".join(models(checkout))],
        owner=owner,
        log=log,
        cwd=checkout.root,
        env={"PYTHONUNBUFFERED": "1"},
    )

    def has_spoken() -> bool:
        return READY in log.read_text(errors="replace") or services.exit_code(record) is not None

    if not wait_until(has_spoken, READY_SECONDS, every=0.1) or READY not in log.read_text(errors="replace"):
        services.stop(SERVICE, grace=STOP_SECONDS)
        msg = "the practice season did not start"
        raise LauncherError(msg, end_of(log.read_text(errors="replace"), 20), f"The full log: {log}")
    step.done(address(port))
