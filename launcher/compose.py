"""docker-compose, whichever there is: Compose v2 as the docker command's plugin, or the program ``docker-compose``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

import yaml

from launcher import debian
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, Commands, end_of, wait_until
from launcher.server_settings import known_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.checkout import Checkout
    from launcher.console import Step

PACKAGE = "docker-compose"
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
ANSWER_SECONDS = 30.0
START_SECONDS = 900.0


def find_program(commands: Commands) -> tuple[str, ...] | None:
    """Find how Compose is called on this machine; None where there is none."""
    if commands.succeeds(["docker", "compose", "version"]):
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else None


def ensure_program(commands: Commands, step: Step, log: Path, *, may_install: bool) -> tuple[str, ...]:
    """Find Compose, or install Debian's.

    Raises
    ------
    LauncherError
        Where there is none and none may be installed: what to do.
    """
    found = find_program(commands)
    if found is None:
        if not (may_install and debian.is_debian() and debian.is_root()):
            raise LauncherError(
                "there is no docker compose on this machine",
                f"Install it:  apt-get install {PACKAGE}",
                "or see https://docs.docker.com/compose/install/",
                exit_code=EXIT_UNAVAILABLE,
            )
        step.update(f"installing Debian's {PACKAGE}")
        debian.install(commands, (PACKAGE,), log)
        found = (PACKAGE,)
    return found


@dataclass(frozen=True)
class Part:
    """A service's container, as the engine sees it.

    Attributes
    ----------
    service
        Its name in docker-compose.yaml.
    state
        created, running, restarting, exited, …
    health
        healthy, unhealthy or starting; empty where nobody checks.
    exit_code
        Of a container that has ended.
    container
        Its id.
    """

    service: str
    state: str
    health: str
    exit_code: int
    container: str

    @property
    def works(self) -> bool:
        """Whether it does what it should: healthy, or ended well where it is there to end."""
        return self.health == "healthy" if self.state == "running" else self.state == "exited" and self.exit_code == 0


class Compose:
    """The server of a checkout, by way of docker-compose.

    Parameters
    ----------
    commands
        Runs the commands.
    program
        How Compose is called.
    checkout
        The checkout whose docker-compose.yaml it is.
    settings
        What .env says. It alone counts: a variable that happens to be set in this shell must not make one command see
        another server than the next.
    """

    def __init__(
        self, commands: Commands, program: Sequence[str], checkout: Checkout, settings: Mapping[str, str]
    ) -> None:
        self._commands = commands
        self._program = tuple(program)
        self._checkout = checkout
        self.settings = dict(settings)
        # of every other setting the shell's value must not count either
        self._environment = dict.fromkeys(known_settings(checkout), "") | self.settings

    @property
    def project(self) -> str:
        """Name that the server's containers, networks and volumes bear."""
        return self.settings["COMPOSE_PROJECT_NAME"]

    def run(
        self,
        *words: str | Path,
        timeout: float = START_SECONDS,
        log: Path | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        check: bool = True,
    ) -> str:
        """Run a command of Compose's to its end and return what it said.

        Raises
        ------
        CommandError
            When it fails.
        """
        return self._commands.run(
            [*self._program, *words],
            timeout=timeout,
            log=log,
            env=self._environment,
            cwd=self._checkout.root,
            stdin=stdin,
            stdout=stdout,
            check=check,
        )

    def show(self, *words: str) -> int:
        """Run a command of Compose's whose output goes to the terminal; returns its exit code."""
        done = subprocess.run(
            [*self._program, *words], env=os.environ | self._environment, cwd=self._checkout.root, check=False
        )
        return done.returncode

    def services(self) -> list[str]:
        """Name the services of docker-compose.yaml, but for those of profiles that are off."""
        # `config --services` of docker-compose 1.29 names those as well
        described = yaml.safe_load((self._checkout.root / "docker-compose.yaml").read_text(encoding="utf-8"))[
            "services"
        ]
        active = {profile.strip() for profile in self.settings.get("COMPOSE_PROFILES", "").split(",")}
        return [
            name
            for name, service in described.items()
            if "profiles" not in service or active.intersection(service["profiles"])
        ]

    def parts(self) -> list[Part]:
        """List the containers of the server's services, whether they run or not."""
        label = f"label={PROJECT}={self.project}"
        listed = self._commands.run(
            ["docker", "ps", "--all", "--quiet", "--filter", label], timeout=ANSWER_SECONDS
        ).split()
        if not listed:
            return []
        # one of them may be gone a moment later: the others are told of all the same
        answer = self._commands.run(
            ["docker", "inspect", "--type", "container", "--format", "{{json .}}", *listed],
            timeout=ANSWER_SECONDS,
            check=False,
        )
        return [
            _part(json.loads(line))
            for line in answer.splitlines()
            if line.startswith("{") and '"com.docker.compose.oneoff":"True"' not in line
        ]

    def volumes(self) -> list[str]:
        """List the server's named volumes that are there."""
        label = f"label={PROJECT}={self.project}"
        words = ["docker", "volume", "ls", "--quiet", "--filter", label]
        return self._commands.run(words, timeout=ANSWER_SECONDS).split()

    def start(self, step: Step, log: Path, *services: str) -> None:
        """Start the services and wait until all of them are healthy.

        Raises
        ------
        LauncherError
            Naming those that are not, with the end of what they said.
        """
        try:
            alone = ("--no-deps", *services) if services else ("--remove-orphans",)
            self.run("up", "--detach", "--no-build", *alone, log=log)
        except CommandError as error:
            failed = [part for part in self._parts_if_any() if part.state == "exited" and part.exit_code]
            raise LauncherError(
                "docker-compose could not start the server",
                *(self._last_words(part) for part in failed),
                *(() if failed else (end_of(error.output, 15),)),
                f"The full log: {log}",
            ) from None
        self.wait_until_healthy(step, set(services or self.services()))

    def wait_until_healthy(self, step: Step, wanted: set[str], patience: float = 300.0) -> None:
        """Wait until these services are healthy.

        Raises
        ------
        LauncherError
            When one of them is not in time.
        """
        waiting: list[Part | str] = []

        def all_work() -> bool:
            parts = {part.service: part for part in self.parts()}
            waiting[:] = [
                parts.get(name, name) for name in sorted(wanted) if name not in parts or not parts[name].works
            ]
            names = [part if isinstance(part, str) else part.service for part in waiting]
            step.update(f"waiting for {', '.join(names)}" if names else "all healthy")
            return not waiting

        if wait_until(all_work, patience, every=1.0):
            return
        told = [f"{part}: it is not there" if isinstance(part, str) else self._last_words(part) for part in waiting]
        msg = f"{len(waiting)} of the server's services did not become healthy"
        raise LauncherError(msg, *told, "All they say: make server-logs")

    def _parts_if_any(self) -> list[Part]:
        try:
            return self.parts()
        except CommandError:
            return []

    def _last_words(self, part: Part) -> str:
        said = self._commands.run(
            ["docker", "logs", "--tail", "15", part.container], timeout=ANSWER_SECONDS, check=False
        )
        return f"{part.service} ({part.health or part.state}): {end_of(said, 15)}"


def _part(facts: Mapping[str, object]) -> Part:
    config, state = facts["Config"], facts["State"]
    if not isinstance(config, dict) or not isinstance(state, dict):
        msg = "docker inspect answered in an unknown form"
        raise LauncherError(msg)
    return Part(
        service=str(config["Labels"].get(SERVICE, "?")),
        state=str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status", "")),
        exit_code=int(state["ExitCode"]),
        container=str(facts["Id"]),
    )
