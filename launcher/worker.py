"""``make worker``: another machine with a Docker engine of its own takes its share of a server's tasks."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import server_settings
from launcher.compose import Compose, ensure_program
from launcher.errors import UsageError
from launcher.server_images import ServerImages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.knobs import Knobs
    from launcher.session import Session

SERVICES = ("socket-proxy", "worker")


def worker(session: Session, knobs: Knobs) -> int:
    """Start a worker on the settings of the server's ``.env``, which must have been copied here."""
    screen, checkout = session.screen, session.checkout
    with session.only_one("worker"):
        settings = worker_settings(server_settings.load(checkout), knobs.server)
        with screen.step("Docker engine") as step:
            session.engine.ensure(step, owner="up", may_install=knobs.may_install)
        session.engine.keep()
        with screen.step("Compose") as step:
            program = ensure_program(session.commands, step, checkout.logs / "apt.log", may_install=knobs.may_install)
            step.done(" ".join(program))
        with screen.step("Worker's images") as step:
            ServerImages(session.docker, checkout, settings, may_install=knobs.may_install).ensure(step, foreign=False)
        session.build_images(may_install=knobs.may_install)
        with screen.step("Worker") as step:
            step.update("starting")
            compose = Compose(session.commands, program, checkout, settings)
            compose.start(step, checkout.logs / "compose.log", *SERVICES)
            step.done(f"{settings['WORKER_NAME']} works for {settings['BROKER_ADDRESS']}: {settings['WORKER_QUEUES']}")
    screen.say("`make server-down` stops it; what it worked at is taken up by another worker.")
    return 0


def worker_settings(settings: Mapping[str, str], knobs: Mapping[str, str]) -> dict[str, str]:
    """Make a worker's settings of the server's.

    Parameters
    ----------
    settings
        The server's.
    knobs
        BROKER (the server's address, with Redis's port if it is not that of the settings), and maybe NAME and QUEUES.

    Raises
    ------
    UsageError
        When BROKER is missing.
    """
    host, _, port = knobs.get("BROKER", "").partition(":")
    if not host:
        msg = "BROKER is empty: at which address is the server?"
        raise UsageError(msg, "Such as: make worker BROKER=10.0.0.5 QUEUES=big-memory")
    engine_socket = Path(settings.get("DOCKER_SOCKET") or server_settings.LOCAL_SOCKET)
    # another machine's group of the socket has another number
    group = str(server_settings.socket_group(engine_socket)) if engine_socket.exists() else settings["DOCKER_GID"]
    return {
        **settings,
        "BROKER_ADDRESS": f"{host}:{port or settings.get('REDIS_PORT') or '6379'}",
        "EXECUTION_API_URL": f"http://{host}:{settings.get('PORT') or '8080'}/execution/",
        "WORKER_NAME": knobs.get("NAME") or socket.gethostname(),
        "WORKER_QUEUES": knobs.get("QUEUES") or settings.get("WORKER_QUEUES") or "default,cpu,big-memory",
        "WORKER_CONCURRENCY": settings.get("WORKER_CONCURRENCY") or str(os.cpu_count() or 1),
        "COMPOSE_PROFILES": "celery",
        "DOCKER_GID": group,
    }
