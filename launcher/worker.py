"""``make worker``: another machine with a separate Docker engine runs tasks of a server."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import server_settings
from launcher.errors import UsageError
from launcher.server import server_session

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.context import CommandContext
    from launcher.options import WorkerOptions

SERVICES = ("socket-proxy", "worker")
SERVER_SECRETS = tuple(name for name in server_settings.SECRETS if name not in server_settings.WORKER_SECRETS)
"""The secrets that no worker gets, even if the file of its machine has them."""


def worker(context: CommandContext, options: WorkerOptions) -> int:
    """Start a worker with the settings of the server's ``.env``, copied here without the secrets of the server."""
    screen, env_file = context.screen, context.paths.env_file
    loaded = server_settings.load(context.paths, server_settings.WORKER_SECRETS)
    if unneeded := [name for name in SERVER_SECRETS if loaded[name] != server_settings.NO_SECRET]:
        screen.note("Secrets", f"{env_file}: a worker does not need {', '.join(unneeded)}: remove these lines")
    settings = worker_settings(loaded, options)
    with (
        server_session(context, options, "worker", lambda: settings, worker=True) as compose,
        screen.step("Worker") as step,
    ):
        step.update("starting")
        compose.start(step, *SERVICES)
        step.done(f"{settings['WORKER_NAME']}, broker {settings['BROKER_ADDRESS']}, queues {settings['WORKER_QUEUES']}")
    screen.print("`make server-down` stops it; another worker then runs its unfinished tasks.")
    return 0


def worker_settings(settings: Mapping[str, str], options: WorkerOptions) -> dict[str, str]:
    """Derive a worker's settings from the server's.

    Parameters
    ----------
    settings
        The server's.
    options
        The server's address, with Redis's port if it differs from the settings; name and queues if given.
    """
    host, _, port = options.broker.partition(":")
    if not host:
        msg = "BROKER is empty: it needs the server's address"
        raise UsageError(msg, "Such as: make worker BROKER=10.0.0.5 QUEUES=big-memory")
    engine_socket = Path(settings.get("DOCKER_SOCKET") or server_settings.LOCAL_SOCKET)
    # the socket's group has another id on another machine
    group = str(server_settings.socket_group(engine_socket)) if engine_socket.exists() else settings["DOCKER_GID"]
    return {
        **settings,
        **dict.fromkeys(SERVER_SECRETS, server_settings.NO_SECRET),
        "BROKER_ADDRESS": f"{host}:{port or settings.get('REDIS_PORT') or '6379'}",
        "EXECUTION_API_URL": f"http://{host}:{settings.get('PORT') or '8080'}/execution/",
        "WORKER_NAME": options.name or socket.gethostname(),
        "WORKER_QUEUES": options.queues or settings.get("WORKER_QUEUES") or "default,cpu,big-memory",
        "WORKER_CONCURRENCY": settings.get("WORKER_CONCURRENCY") or str(os.cpu_count() or 1),
        "COMPOSE_PROFILES": "celery",
        "DOCKER_GID": group,
    }
