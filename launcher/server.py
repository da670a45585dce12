"""``make server`` and its kin: Airflow for a team, by docker-compose, on the settings of ``.env``."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher import server_settings
from launcher.airflow_home import DAG_ID
from launcher.compose import Compose, ensure_program, find_program
from launcher.errors import LauncherError, UsageError
from launcher.processes import CommandError
from launcher.server_images import ServerImages

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from launcher.knobs import Knobs
    from launcher.session import Session

OWNER = "up"
# what is stopped for an upgrade or a restoration: all that works with the database, or for those that do
AIRFLOW_PARTS = frozenset({"api-server", "scheduler", "dag-processor", "triggerer", "worker"})
ROLES = ("Admin", "Op", "User", "Viewer")


def server(session: Session, knobs: Knobs) -> int:
    """Set everything up and start the server, or bring one that runs up to date with its settings and this code."""
    with session.only_one("server"):
        compose = prepare(session, knobs)
        with session.screen.step("Server") as step:
            step.update("starting (about a minute)")
            compose.start(step, session.checkout.logs / "compose.log")
            step.done(f"{len(compose.parts())} services are healthy")
    say_where(session, server_settings.load(session.checkout))
    return 0


def upgrade(session: Session, knobs: Knobs) -> int:
    """Put the present code in the place of what the server runs; runs in progress go on afterwards."""
    from launcher.server_backup import back_up

    with session.only_one("server-upgrade"):
        server_settings.load(session.checkout)
        compose = prepare(session, knobs)
        back_up(session, compose, session.checkout.backups, everything=False)
        with session.screen.step("Upgrade") as step:
            # Models' containers work on meanwhile: the tasks that wait for them are tried again, and take them over.
            step.update("stopping Airflow; the models' containers work on")
            log = session.checkout.logs / "compose.log"
            stop_airflow(compose, log)
            step.update("migrating the database, starting (about a minute)")
            compose.start(step, log)
            step.done(f"{len(compose.parts())} services are healthy")
    say_where(session, server_settings.load(session.checkout))
    return 0


def stop_airflow(compose: Compose, log: Path) -> None:
    """Stop Airflow's parts, and leave the database, the proxy and the models' containers at work."""
    compose.run("stop", *(name for name in compose.services() if name in AIRFLOW_PARTS), log=log)


def down(session: Session, _: Knobs) -> int:
    """Stop the server and the models' containers; database, logs and data stay."""
    compose = existing(session)
    with session.screen.step("Server") as step:
        step.update("stopping")
        removed = _stop(session, compose)
        containers = f" and {removed} containers of models" if removed else ""
        step.done(f"stopped, its containers{containers} removed; database, logs and data stay")
    session.screen.say("`make server` starts it again; runs that were under way go on.")
    return 0


def logs(session: Session, knobs: Knobs) -> int:
    """Show what the services say, until it is interrupted."""
    service = knobs.server.get("SERVICE", "")
    compose = existing(session)
    known = compose.services()
    if service and service not in known:
        msg = f"SERVICE={service}: there is none; choose from {', '.join(sorted(known))}"
        raise UsageError(msg)
    return compose.show("logs", "--tail", "200", "--follow", *([service] if service else []))


def add_user(session: Session, knobs: Knobs) -> int:
    """Make a user with a fresh password, which is shown once.

    Raises
    ------
    UsageError
        For a name or a role that cannot be.
    LauncherError
        When Airflow does not take it.
    """
    name, role = knobs.server.get("NAME", ""), knobs.server.get("ROLE", "Viewer").capitalize()
    if not name or not all(letter.isalnum() or letter in "._-" for letter in name):
        msg = f"NAME={name}: a user's name is of letters, digits, dots, dashes and underscores"
        raise UsageError(msg, "Such as: make server-user NAME=anna ROLE=viewer")
    if role not in ROLES:
        msg = f"ROLE={role}: choose from {', '.join(each.lower() for each in ROLES)}"
        raise UsageError(msg)
    compose = existing(session)
    password = secrets.token_urlsafe(18)
    answer = _make_user(compose, name, role, password)
    if answer:
        msg = f"Airflow did not make the user {name}"
        raise LauncherError(msg, answer)
    session.screen.tick("User", f"{name} ({role.lower()})")
    session.screen.say(f"Password          {password}")
    session.screen.say("It is kept nowhere but, hashed, in the database: hand it over now.")
    return 0


def prepare(session: Session, knobs: Knobs) -> Compose:
    """Provide engine, Compose, settings and images."""
    screen, checkout = session.screen, session.checkout
    with screen.step("Docker engine") as step:
        session.engine.ensure(step, owner=OWNER, may_install=knobs.may_install)
    session.engine.keep()
    with screen.step("Compose") as step:
        program = ensure_program(session.commands, step, checkout.logs / "apt.log", may_install=knobs.may_install)
        step.done(" ".join(program))
    with screen.step("Settings") as step:
        settings, told = _settings(session, knobs)
        compose = Compose(session.commands, program, checkout, settings)
        step.done(told)
    with screen.step("Server's images") as step:
        ServerImages(session.docker, checkout, settings, may_install=knobs.may_install).ensure(step)
    session.build_images(may_install=knobs.may_install)
    return compose


def existing(session: Session) -> Compose:
    """Find the server of this checkout.

    Raises
    ------
    LauncherError
        When there is none, or no Compose.
    """
    settings = server_settings.load(session.checkout)
    program = find_program(session.commands)
    if program is None:
        msg = "there is no docker compose on this machine"
        raise LauncherError(msg, "`make server` installs it, or says how to.")
    return Compose(session.commands, program, session.checkout, settings)


def _settings(session: Session, knobs: Knobs) -> tuple[dict[str, str], str]:
    checkout = session.checkout
    if checkout.env_file.exists():
        settings = server_settings.load(checkout)
        # knobs of other commands, such as a restoration's FROM, are no settings
        chosen = {name: text for name, text in knobs.server.items() if name != "FROM"}
        differing = {name: text for name, text in chosen.items() if settings.get(name, "") != text}
        if differing:
            said = ", ".join(f"{name}={text}" for name, text in differing.items())
            msg = f"{said}: not what {checkout.env_file} says, which is never changed behind your back"
            raise UsageError(msg, "Change it there, then:  make server")
        return settings, f"as {checkout.env_file} has them"
    left = Compose(
        session.commands, (), checkout, {"COMPOSE_PROJECT_NAME": server_settings.project_name(checkout)}
    ).volumes()
    if left:
        msg = f"{checkout.env_file} is gone, but the server's volumes are there ({', '.join(sorted(left))})"
        raise LauncherError(
            msg,
            "Their database opens only with the secrets of that file: put it back (a copy is in every backup),",
            f"or give them up:  docker volume rm {' '.join(sorted(left))}",
        )
    settings = server_settings.write_first(checkout, knobs.server, os.environ)
    return settings, f"written to {checkout.env_file}, with fresh secrets, readable by you alone"


def _make_user(compose: Compose, name: str, role: str, password: str) -> str:
    """Have Airflow make a user; returns what went wrong, or nothing."""
    with tempfile.TemporaryFile() as stdin:
        # not on a command line, which everybody on the machine could read
        stdin.write(f"{password}\n{password}\n".encode())
        stdin.seek(0)
        facts = ["--firstname", name, "--lastname", role, "--email", f"{name}@localhost"]
        words = ["airflow", "users", "create", "--username", name, "--role", role, *facts]
        try:
            said = compose.run("exec", "-T", "api-server", *words, timeout=120, stdin=stdin)
        except CommandError as error:
            return error.output[-2000:]
    return "there is a user of that name already" if "already exist" in said else ""


def _stop(session: Session, compose: Compose) -> int:
    installation = ""
    with suppress(CommandError):
        said = compose.run(
            "run", "--rm", "--no-deps", "-T", "triggerer", "sh", "-c", 'cat "$NUMERAI_DATA_DIR/.installation"',
            timeout=120, check=False,
        )  # fmt: skip
        installation = next((line for line in said.split() if re.fullmatch("[0-9a-f]{12}", line)), "")
    compose.run("down", "--remove-orphans", log=session.checkout.logs / "compose.log")
    return session.docker.remove_containers(numerai=installation) if installation else 0


def say_where(session: Session, settings: Mapping[str, str]) -> None:
    """Say where the server is reached and what belongs to it."""
    say = session.screen.say
    env_file: Path = session.checkout.env_file
    say()
    say(f"Airflow's page    {settings.get('BASE_URL')}/dags/{DAG_ID}", style="bold")
    say(f"User              {settings.get('ADMIN_USER') or 'admin'}")
    say(f"Password          in {env_file} (ADMIN_PASSWORD), unless it was changed in Airflow")
    say(f"Data              {settings['NUMERAI_DATA_DIR']}")
    say()
    say("Further users: make server-user NAME=anna ROLE=viewer. Others: make server-logs, server-down, server-upgrade,")
    say("server-backup, server-restore. All of it is explained in docs/operations.md.")
