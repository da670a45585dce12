"""docker-compose: Compose v2 as the docker command's plugin, or else the program ``docker-compose``."""

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
from launcher.processes import CommandError, Commands, tail, wait_until
from launcher.server_settings import known_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from launcher.console import Step
    from launcher.paths import ProjectPaths

PACKAGE = "docker-compose"
PROJECT = "com.docker.compose.project"
SERVICE = "com.docker.compose.service"
ANSWER_SECONDS = 30.0
START_SECONDS = 900.0


def find_program(commands: Commands) -> tuple[str, ...] | None:
    """Find the command of Compose on this machine; None if there is none."""
    if commands.succeeds(["docker", "compose", "version"]):
        return ("docker", "compose")
    return ("docker-compose",) if shutil.which("docker-compose") else None


def ensure_program(commands: Commands, step: Step, log: Path, *, may_install: bool) -> tuple[str, ...]:
    """Find Compose, or install Debian's.

    Raises
    ------
    LauncherError
        When there is none and none may be installed, with the remedy.
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
class ServiceStatus:
    """The state of a service's container.

    Attributes
    ----------
    service
        Its name in docker-compose.yaml.
    state
        created, running, restarting, exited, …
    health
        healthy, unhealthy or starting; empty for a service without a health check.
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
    def is_ok(self) -> bool:
        """Whether it is healthy or, as a one-time service, has succeeded."""
        return self.health == "healthy" if self.state == "running" else self.state == "exited" and self.exit_code == 0


class Compose:
    """A checkout's server, run by docker-compose.

    Parameters
    ----------
    commands
        Runs the commands.
    program
        The command of Compose.
    paths
        The checkout with docker-compose.yaml.
    settings
        The settings of .env, which take precedence over variables of this shell: these would make one command act on
        another server than the next.
    """

    def __init__(
        self, commands: Commands, program: Sequence[str], paths: ProjectPaths, settings: Mapping[str, str]
    ) -> None:
        self._commands = commands
        self._program = tuple(program)
        self._paths = paths
        self.settings = dict(settings)
        # nor may the shell's values of all other settings count
        self._environment = dict.fromkeys(known_settings(paths), "") | self.settings

    @property
    def project(self) -> str:
        """Project name in the labels of the server's containers, networks and volumes."""
        return self.settings["COMPOSE_PROJECT_NAME"]

    def run(
        self,
        *command: str | Path,
        timeout: float = START_SECONDS,
        log: Path | None = None,
        stdin: IO[bytes] | None = None,
        stdout: IO[bytes] | None = None,
        check: bool = True,
    ) -> str:
        """Run a Compose command to its end and return its output.

        Raises
        ------
        CommandError
            When it fails.
        """
        return self._commands.run(
            [*self._program, *command],
            timeout=timeout,
            log=log,
            env=self._environment,
            cwd=self._paths.root,
            stdin=stdin,
            stdout=stdout,
            check=check,
        )

    def show(self, *command: str) -> int:
        """Run a Compose command with its output on the terminal; returns its exit code."""
        done = subprocess.run(
            [*self._program, *command], env=os.environ | self._environment, cwd=self._paths.root, check=False
        )
        return done.returncode

    def services(self) -> list[str]:
        """List the services of docker-compose.yaml, without those of inactive profiles."""
        # `config --services` of docker-compose 1.29 lists these as well
        described = yaml.safe_load((self._paths.root / "docker-compose.yaml").read_text(encoding="utf-8"))["services"]
        active = {profile.strip() for profile in self.settings.get("COMPOSE_PROFILES", "").split(",")}
        return [
            name
            for name, service in described.items()
            if "profiles" not in service or active.intersection(service["profiles"])
        ]

    def service_statuses(self) -> list[ServiceStatus]:
        """List the states of the services' containers, running or not."""
        label = f"label={PROJECT}={self.project}"
        listed = self._commands.run(
            ["docker", "ps", "--all", "--quiet", "--filter", label], timeout=ANSWER_SECONDS
        ).split()
        if not listed:
            return []
        # check=False: a container may be removed meanwhile; the others are listed in any case
        answer = self._commands.run(
            ["docker", "inspect", "--type", "container", "--format", "{{json .}}", *listed],
            timeout=ANSWER_SECONDS,
            check=False,
        )
        return [
            _status_from_inspect(json.loads(line))
            for line in answer.splitlines()
            if line.startswith("{") and '"com.docker.compose.oneoff":"True"' not in line
        ]

    def volumes(self) -> list[str]:
        """List the server's existing named volumes."""
        label = f"label={PROJECT}={self.project}"
        command = ["docker", "volume", "ls", "--quiet", "--filter", label]
        return self._commands.run(command, timeout=ANSWER_SECONDS).split()

    def start(self, step: Step, log: Path, *services: str) -> None:
        """Start the services and wait until all of them are healthy.

        Raises
        ------
        LauncherError
            Naming the services that are not, with the ends of their logs.
        """
        try:
            selection = ("--no-deps", *services) if services else ("--remove-orphans",)
            self.run("up", "--detach", "--no-build", *selection, log=log)
        except CommandError as error:
            failed = [status for status in self._statuses_if_any() if status.state == "exited" and status.exit_code]
            raise LauncherError(
                "docker-compose could not start the server",
                *(self._log_tail(status) for status in failed),
                *(() if failed else (tail(error.output, 15),)),
                f"The full log: {log}",
            ) from None
        self.wait_until_healthy(step, set(services or self.services()))

    def wait_until_healthy(self, step: Step, wanted: set[str], timeout: float = 300.0) -> None:
        """Wait until these services are healthy.

        Raises
        ------
        LauncherError
            When one of them is not healthy in time.
        """
        waiting: list[ServiceStatus | str] = []

        def all_ok() -> bool:
            statuses = {status.service: status for status in self.service_statuses()}
            waiting[:] = [
                statuses.get(name, name) for name in sorted(wanted) if name not in statuses or not statuses[name].is_ok
            ]
            names = [status if isinstance(status, str) else status.service for status in waiting]
            step.update(f"waiting for {', '.join(names)}" if names else "all healthy")
            return not waiting

        if wait_until(all_ok, timeout, every=1.0):
            return
        reports = [f"{each}: no container" if isinstance(each, str) else self._log_tail(each) for each in waiting]
        msg = f"{len(waiting)} of the server's services did not become healthy"
        raise LauncherError(msg, *reports, "All logs: make server-logs")

    def _statuses_if_any(self) -> list[ServiceStatus]:
        try:
            return self.service_statuses()
        except CommandError:
            return []

    def _log_tail(self, status: ServiceStatus) -> str:
        output = self._commands.run(
            ["docker", "logs", "--tail", "15", status.container], timeout=ANSWER_SECONDS, check=False
        )
        return f"{status.service} ({status.health or status.state}): {tail(output, 15)}"


def _status_from_inspect(inspected: Mapping[str, object]) -> ServiceStatus:
    config, state = inspected["Config"], inspected["State"]
    if not isinstance(config, dict) or not isinstance(state, dict):
        msg = "docker inspect printed an unknown format"
        raise LauncherError(msg)
    return ServiceStatus(
        service=str(config["Labels"].get(SERVICE, "?")),
        state=str(state["Status"]),
        health=str((state.get("Health") or {}).get("Status", "")),
        exit_code=int(state["ExitCode"]),
        container=str(inspected["Id"]),
    )
