"""``make server`` and related commands: Airflow for a team, by docker-compose, with the settings of ``.env``."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher import server_settings
from launcher.compose import Compose, ensure_program, find_program
from launcher.errors import LauncherError, UsageError
from launcher.local_airflow import DAG_ID, DEPLOYMENT
from launcher.processes import CommandError
from launcher.server_images import ServerImages

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from launcher.context import CommandContext
    from launcher.options import Options

OWNER = "up"
# stopped for an upgrade or a restoration: all services that use the database
AIRFLOW_SERVICES = frozenset({"api-server", "scheduler", "dag-processor", "triggerer", "worker"})
ROLES = ("Admin", "Op", "User", "Viewer")


def server(context: CommandContext, options: Options) -> int:
    """Set everything up and start the server, or update a running one to its settings and the present code."""
    with context.exclusive_command("server"):
        compose = prepare(context, options)
        with context.screen.step("Server") as step:
            step.update("starting (about a minute)")
            compose.start(step, context.paths.logs / "compose.log")
            step.done(f"{len(compose.service_statuses())} services are healthy")
    print_endpoints(context, server_settings.load(context.paths))
    return 0


def upgrade(context: CommandContext, options: Options) -> int:
    """Upgrade the server to the present code; runs in progress continue afterwards."""
    from launcher.server_backup import create_backup

    with context.exclusive_command("server-upgrade"):
        server_settings.load(context.paths)
        compose = prepare(context, options)
        create_backup(context, compose, context.paths.backups, everything=False)
        with context.screen.step("Upgrade") as step:
            # model containers keep running; the next attempts of their tasks reattach to them
            step.update("stopping Airflow; the model containers keep running")
            log = context.paths.logs / "compose.log"
            stop_airflow(compose, log)
            step.update("migrating the database, starting (about a minute)")
            compose.start(step, log)
            step.done(f"{len(compose.service_statuses())} services are healthy")
    print_endpoints(context, server_settings.load(context.paths))
    return 0


def stop_airflow(compose: Compose, log: Path) -> None:
    """Stop Airflow's services; the database, the proxy and the model containers keep running."""
    compose.run("stop", *(name for name in compose.services() if name in AIRFLOW_SERVICES), log=log)


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


def logs(context: CommandContext, options: Options) -> int:
    """Show the services' logs until interrupted."""
    service = options.server.get("SERVICE", "")
    compose = load_server(context, server_settings.WORKER_SECRETS)
    known = compose.services()
    if service and service not in known:
        msg = f"SERVICE={service}: not a service; choose from {', '.join(sorted(known))}"
        raise UsageError(msg)
    return compose.show("logs", "--tail", "200", "--follow", *([service] if service else []))


def add_user(context: CommandContext, options: Options) -> int:
    """Create a user with a new password, which is printed once.

    Raises
    ------
    UsageError
        For an invalid name or role.
    LauncherError
        When Airflow rejects it.
    """
    name, role = options.server.get("NAME", ""), options.server.get("ROLE", "Viewer").capitalize()
    if not name or not all(letter.isalnum() or letter in "._-" for letter in name):
        msg = f"NAME={name}: a user name consists of letters, digits, dots, dashes and underscores"
        raise UsageError(msg, "Such as: make server-user NAME=anna ROLE=viewer")
    if role not in ROLES:
        msg = f"ROLE={role}: choose from {', '.join(each.lower() for each in ROLES)}"
        raise UsageError(msg)
    compose = load_server(context)
    password = secrets.token_urlsafe(18)
    answer = _create_user(compose, name, role, password)
    if answer:
        msg = f"Airflow did not create the user {name}"
        raise LauncherError(msg, answer)
    context.screen.success("User", f"{name} ({role.lower()})")
    context.screen.print(f"Password          {password}")
    context.screen.print("Only its hash is stored, in the database: pass it on now.")
    return 0


def prepare(context: CommandContext, options: Options) -> Compose:
    """Provide engine, Compose, settings and images."""
    screen, paths = context.screen, context.paths
    with screen.step("Docker engine") as step:
        context.engine.ensure(step, owner=OWNER, may_install=options.may_install)
    context.engine.keep_running()
    with screen.step("Compose") as step:
        program = ensure_program(context.commands, step, paths.logs / "apt.log", may_install=options.may_install)
        step.done(" ".join(program))
    with screen.step("Settings") as step:
        settings, report = _settings(context, options)
        compose = Compose(context.commands, program, paths, settings)
        step.done(report)
    with screen.step("Server images") as step:
        ServerImages(context.docker, paths, settings, may_install=options.may_install).ensure(step)
    context.build_images(may_install=options.may_install)
    return compose


def load_server(context: CommandContext, secrets: Iterable[str] = server_settings.SECRETS) -> Compose:
    """Find the server of this checkout.

    Parameters
    ----------
    context
        The checkout.
    secrets
        The secrets that the command needs; the machine of a worker has only a worker's.

    Raises
    ------
    LauncherError
        When there is none, or no Compose.
    """
    settings = server_settings.load(context.paths, secrets)
    program = find_program(context.commands)
    if program is None:
        msg = "there is no docker compose on this machine"
        raise LauncherError(msg, "`make server` installs it, or prints how to.")
    return Compose(context.commands, program, context.paths, settings)


def _settings(context: CommandContext, options: Options) -> tuple[dict[str, str], str]:
    paths = context.paths
    if paths.env_file.exists():
        settings = server_settings.load(paths)
        # FROM is an option of server-restore, not a setting
        requested = {name: text for name, text in options.server.items() if name != "FROM"}
        differing = {name: text for name, text in requested.items() if settings.get(name, "") != text}
        if differing:
            given = ", ".join(f"{name}={text}" for name, text in differing.items())
            msg = f"{given}: differs from {paths.env_file}, which the launcher never changes"
            raise UsageError(msg, "Change it in that file, then:  make server")
        return settings, f"from {paths.env_file}"
    volumes = Compose(
        context.commands, (), paths, {"COMPOSE_PROJECT_NAME": server_settings.project_name(paths)}
    ).volumes()
    if volumes:
        msg = f"{paths.env_file} is missing, but the server's volumes exist ({', '.join(sorted(volumes))})"
        raise LauncherError(
            msg,
            "Their database requires the secrets of that file: restore it (every backup has a copy),",
            f"or remove them:  docker volume rm {' '.join(sorted(volumes))}",
        )
    settings = server_settings.create_env_file(paths, options.server, os.environ)
    return settings, f"written to {paths.env_file}, with new secrets, readable only by you"


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
    compose.run("down", "--remove-orphans", log=context.paths.logs / "compose.log")
    labels = dict(zip(("numerai", "numerai_deployment"), ids, strict=False))
    return context.docker.remove_containers(**labels) if labels else 0


def print_endpoints(context: CommandContext, settings: Mapping[str, str]) -> None:
    """Print the server's address, user and folders."""
    line = context.screen.print
    env_file: Path = context.paths.env_file
    line()
    line(f"Airflow's page    {settings.get('BASE_URL')}/dags/{DAG_ID}", style="bold")
    line(f"User              {settings.get('ADMIN_USER') or 'admin'}")
    line(f"Password          in {env_file} (ADMIN_PASSWORD), unless changed in Airflow")
    line(f"Data              {settings['NUMERAI_DATA_DIR']}")
    line()
    line(
        "More users: make server-user NAME=anna ROLE=viewer. Other commands: server-logs, server-down, server-upgrade,"
    )
    line("server-backup, server-restore. Documentation: docs/deployment/server.md.")
