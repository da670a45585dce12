"""``make server`` and related commands: Airflow for a team, by docker-compose, with the settings of ``.env``."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from launcher import server_settings
from launcher.compose import Compose, ensure_program, find_program
from launcher.errors import LauncherError, UsageError
from launcher.local_airflow import DAG_ID, DEPLOYMENT
from launcher.processes import CommandError
from launcher.server_images import ServerImages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from launcher.context import CommandContext
    from launcher.options import LogsOptions, Options, ServerOptions, UserOptions

# stopped for an upgrade or a restoration: all services that use the database
AIRFLOW_SERVICES = frozenset({"api-server", "scheduler", "dag-processor", "triggerer", "worker"})
ROLES = ("admin", "op", "user", "viewer")


def server(context: CommandContext, options: ServerOptions) -> int:
    """Set everything up and start the server, or update a running one to its settings and the present code."""
    with (
        server_session(context, options, "server", lambda: _settings(context, options.settings)) as compose,
        context.screen.step("Server") as step,
    ):
        step.update("starting (about a minute)")
        compose.start(step)
        step.done(f"{len(compose.service_statuses())} services are healthy")
    return 0


def upgrade(context: CommandContext, options: Options) -> int:
    """Upgrade the server to the present code; runs in progress continue afterwards."""
    from launcher.server_backup import create_backup

    server_settings.load(context.paths)
    with server_session(context, options, "server-upgrade", lambda: _settings(context, {})) as compose:
        create_backup(context, compose, context.paths.backups, everything=False)
        with context.screen.step("Upgrade") as step:
            # model containers keep running; the next attempts of their tasks reattach to them
            step.update("stopping Airflow; the model containers keep running")
            stop_airflow(compose)
            step.update("migrating the database, starting (about a minute)")
            compose.start(step)
            step.done(f"{len(compose.service_statuses())} services are healthy")
    return 0


def stop_airflow(compose: Compose) -> None:
    """Stop Airflow's services; the database, the proxy and the model containers keep running."""
    compose.run("stop", *(name for name in compose.services() if name in AIRFLOW_SERVICES), log=True)


def down(context: CommandContext, _: Options) -> int:
    """Stop the server, or the worker, and the model containers; database, logs and data stay."""
    compose = load_server(context, server_settings.WORKER_SECRETS)
    with context.screen.step("Server") as step:
        step.update("stopping")
        removed = _stop(context, compose)
        containers = f" and {removed} model containers" if removed else ""
        step.done(f"stopped, its containers{containers} removed; database, logs and data stay")
    context.screen.print("`make server` starts it again; unfinished runs continue.")
    return 0


def logs(context: CommandContext, options: LogsOptions) -> int:
    """Show the services' logs until interrupted."""
    compose = load_server(context, server_settings.WORKER_SECRETS)
    known = sorted(compose.services())
    if options.service and options.service not in known:
        msg = f"SERVICE={options.service}: not a service; choose from {', '.join(known)}"
        raise UsageError(msg)
    return compose.show("logs", "--tail", "200", "--follow", *([options.service] if options.service else []))


def add_user(context: CommandContext, options: UserOptions) -> int:
    """Create a user with a new password, which is printed once."""
    name, role = options.name, options.role.lower()
    if not re.fullmatch(r"[\w.-]+", name):
        msg = f"NAME={name}: a user name consists of letters, digits, dots, dashes and underscores"
        raise UsageError(msg, "Such as: make server-user NAME=anna ROLE=viewer")
    if role not in ROLES:
        msg = f"ROLE={role}: choose from {', '.join(ROLES)}"
        raise UsageError(msg)
    password = secrets.token_urlsafe(18)
    if problem := _create_user(load_server(context), name, role.capitalize(), password):
        msg = f"Airflow did not create the user {name}"
        raise LauncherError(msg, problem)
    context.screen.success("User", f"{name} ({role})")
    context.screen.print(f"Password          {password}")
    context.screen.print("Only its hash is stored, in the database: pass it on now.")
    return 0


@contextmanager
def server_session(
    context: CommandContext,
    options: Options,
    command: str,
    settings: Callable[[], dict[str, str]],
    *,
    worker: bool = False,
) -> Iterator[Compose]:
    """Provide engine, Compose, settings and images of a server or a worker; all of them keep running.

    Parameters
    ----------
    context, options, command
        The command.
    settings
        Reads or writes the settings, when the engine is known.
    worker
        Whether third-party images are not needed.
    """
    with context.lifecycle(command, options) as cleanup:
        context.keep_running(cleanup)
        program = ensure_program(context, may_install=options.may_install)
        compose = Compose(context.commands, program, context.paths, settings())
        with context.screen.step("Worker images" if worker else "Server images") as step:
            images = ServerImages(context.docker, context.paths, compose.settings, may_install=options.may_install)
            images.ensure(step, third_party=not worker)
        context.build_images(options)
        yield compose
    if not worker:
        _print_endpoints(context, compose.settings)


def load_server(context: CommandContext, secrets: Iterable[str] = server_settings.SECRETS) -> Compose:
    """Find the server of this checkout; the machine of a worker has only a worker's secrets."""
    settings = server_settings.load(context.paths, secrets)
    program = find_program(context.commands)
    if program is None:
        msg = "there is no docker compose on this machine"
        raise LauncherError(msg, "`make server` installs it, or prints how to.")
    return Compose(context.commands, program, context.paths, settings)


def _settings(context: CommandContext, requested: dict[str, str]) -> dict[str, str]:
    paths = context.paths
    with context.screen.step("Settings") as step:
        if paths.env_file.exists():
            settings = server_settings.load(paths)
            if differing := [f"{name}={text}" for name, text in requested.items() if settings.get(name, "") != text]:
                msg = f"{', '.join(differing)}: differs from {paths.env_file}, which the launcher never changes"
                raise UsageError(msg, "Change it in that file, then:  make server")
            step.done(f"from {paths.env_file}")
            return settings
        project = {"COMPOSE_PROJECT_NAME": server_settings.project_name(paths)}
        if volumes := sorted(Compose(context.commands, (), paths, project).volumes()):
            raise LauncherError(
                f"{paths.env_file} is missing, but the server's volumes exist ({', '.join(volumes)})",
                "Their database requires the secrets of that file: restore it (every backup has a copy),",
                f"or remove them:  docker volume rm {' '.join(volumes)}",
            )
        settings = server_settings.create_env_file(paths, requested, os.environ)
        step.done(f"written to {paths.env_file}, with new secrets, readable only by you")
        return settings


def _create_user(compose: Compose, name: str, role: str, password: str) -> str:
    """Have Airflow create a user; returns the error, or an empty text."""
    with tempfile.TemporaryFile() as stdin:
        # not on a command line, which every user of the machine can read
        stdin.write(f"{password}\n{password}\n".encode())
        stdin.seek(0)
        profile = ["--firstname", name, "--lastname", role, "--email", f"{name}@localhost"]
        command = ["airflow", "users", "create", "--username", name, "--role", role, *profile]
        try:
            output = compose.run("exec", "-T", "api-server", *command, timeout=120, stdin=stdin)
        except CommandError as error:
            return error.output[-2000:]
    return "a user of that name exists" if "already exist" in output else ""


def _stop(context: CommandContext, compose: Compose) -> int:
    query = f'cat "$NUMERAI_DATA_DIR/.installation"; airflow variables get {DEPLOYMENT}'
    ids: list[str] = []
    with suppress(CommandError):
        output = compose.run("run", "--rm", "--no-deps", "-T", "triggerer", "sh", "-c", query, timeout=120, check=False)
        # a worker's machine does not reach the database: there the id of the data directory must do
        ids = [line for line in output.split() if re.fullmatch("[0-9a-f]{12}", line)]
    compose.run("down", "--remove-orphans", log=True)
    labels = [f"{label}={found}" for label, found in zip(("numerai", "numerai.deployment"), ids, strict=False)]
    return context.docker.remove_containers(*labels) if labels else 0


def _print_endpoints(context: CommandContext, settings: Mapping[str, str]) -> None:
    """Print the server's address, user and folders."""
    env_file = context.paths.env_file
    context.screen.print(f"\nAirflow's page    {settings.get('BASE_URL')}/dags/{DAG_ID}", style="bold")
    for line in (
        f"User              {settings.get('ADMIN_USER') or 'admin'}",
        f"Password          in {env_file} (ADMIN_PASSWORD), unless changed in Airflow",
        f"Data              {settings['NUMERAI_DATA_DIR']}",
        "",
        "More users: make server-user NAME=anna ROLE=viewer. Other commands: server-logs, server-down, server-upgrade,",
        "server-backup, server-restore. Documentation: docs/deployment/server.md.",
    ):
        context.screen.print(line)
