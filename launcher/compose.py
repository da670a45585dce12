"""docker-compose: Compose v2 as the docker command's plugin, or else the program ``docker-compose``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from launcher import debian
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, Commands, tail, wait_until
from launcher.server_settings import known_settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.console import Step
    from launcher.context import CommandContext
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
    return (PACKAGE,) if shutil.which(PACKAGE) else None


def ensure_program(context: CommandContext, *, may_install: bool) -> tuple[str, ...]:
    """Find Compose, or install Debian's."""
    with context.screen.step("Compose") as step:
        found = find_program(context.commands)
        if found is None:
            if not (may_install and debian.is_debian() and debian.is_root()):
                raise LauncherError(
                    "there is no docker compose on this machine",
                    f"Install it:  apt-get install {PACKAGE}",
                    "or see https://docs.docker.com/compose/install/",
                    exit_code=EXIT_UNAVAILABLE,
                )
            step.announce(f"there is none: installing Debian's {PACKAGE}")
            debian.install(context.commands, (PACKAGE,), context.paths.logs / "apt.log")
            found = (PACKAGE,)
        step.done(" ".join(found))
    return found


@dataclass(frozen=True)
class ServiceStatus:
    """The state of a service's container: created, running, exited …; its health is empty without a health check."""

    service: str
    state: str
    health: str
    exit_code: int
    container: str

    @classmethod
    def from_inspect(cls, inspected: Mapping[str, Any]) -> ServiceStatus:
        """Read an object of `docker inspect`."""
        state = inspected["State"]
        health = (state.get("Health") or {}).get("Status", "")
        name = inspected["Config"]["Labels"].get(SERVICE, "?")
        return cls(name, state["Status"], health, state["ExitCode"], inspected["Id"])

    @property
    def is_ok(self) -> bool:
        """Whether it is healthy or, as a one-time service, has succeeded."""
        return self.health == "healthy" if self.state == "running" else self.state == "exited" and self.exit_code == 0


class Compose:
    """A checkout's server, run by docker-compose with the settings of .env.

    These take precedence over variables of this shell, which would make one command act on another server than the
    next.
    """

    def __init__(
        self, commands: Commands, program: Sequence[str], paths: ProjectPaths, settings: Mapping[str, str]
    ) -> None:
        self._commands = commands
        self._program = tuple(program)
        self._paths = paths
        self._log = paths.logs / "compose.log"
        self.settings = dict(settings)
        # nor may the shell's values of all other settings count
        self._environment = dict.fromkeys(known_settings(paths), "") | self.settings

    def run(self, *command: str, timeout: float = START_SECONDS, log: bool = False, **options: Any) -> str:
        """Run a Compose command to its end and return its output; `options` are those of `Commands.run`."""
        return self._commands.run(
            [*self._program, *command],
            timeout=timeout,
            log=self._log if log else None,
            env=self._environment,
            cwd=self._paths.root,
            **options,
        )

    def show(self, *command: str) -> int:
        """Run a Compose command with its output on the terminal; returns its exit code."""
        environment = os.environ | self._environment
        return subprocess.run([*self._program, *command], env=environment, cwd=self._paths.root, check=False).returncode

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
        listed = self._docker("ps", "--all", "--quiet", "--filter", self._project_label).split()
        if not listed:
            return []
        # check=False: a container may be removed meanwhile; the others are listed in any case
        answer = self._docker("inspect", "--type", "container", "--format", "{{json .}}", *listed, check=False)
        return [
            ServiceStatus.from_inspect(json.loads(line))
            for line in answer.splitlines()
            if line.startswith("{") and '"com.docker.compose.oneoff":"True"' not in line
        ]

    def volumes(self) -> list[str]:
        """List the server's existing named volumes."""
        return self._docker("volume", "ls", "--quiet", "--filter", self._project_label).split()

    @property
    def _project_label(self) -> str:
        return f"label={PROJECT}={self.settings['COMPOSE_PROJECT_NAME']}"

    def _docker(self, *command: str, check: bool = True) -> str:
        return self._commands.run(["docker", *command], timeout=ANSWER_SECONDS, check=check)

    def start(self, step: Step, *services: str) -> None:
        """Start the services and wait until all of them are healthy; the error has the ends of the others' logs."""
        try:
            selection = ("--no-deps", *services) if services else ("--remove-orphans",)
            self.run("up", "--detach", "--no-build", *selection, log=True)
        except CommandError as error:
            try:
                failed = [status for status in self.service_statuses() if status.state == "exited" and status.exit_code]
            except CommandError:
                failed = []
            reports = [self._log_tail(status) for status in failed] or [tail(error.output, 15)]
            msg = "docker-compose could not start the server"
            raise LauncherError(msg, *reports, f"The full log: {self._log}") from None
        self._wait_until_healthy(step, set(services or self.services()))

    def _wait_until_healthy(self, step: Step, wanted: set[str], timeout: float = 300.0) -> None:
        waiting: dict[str, ServiceStatus | None] = {}

        def are_healthy() -> bool:
            nonlocal waiting
            statuses = {status.service: status for status in self.service_statuses()}
            found = {name: statuses.get(name) for name in sorted(wanted)}
            waiting = {name: status for name, status in found.items() if status is None or not status.is_ok}
            step.update(f"waiting for {', '.join(waiting)}" if waiting else "all healthy")
            return not waiting

        if not wait_until(are_healthy, timeout, every=1.0):
            reports = [
                self._log_tail(status) if status else f"{name}: no container" for name, status in waiting.items()
            ]
            msg = f"{len(waiting)} of the server's services did not become healthy"
            raise LauncherError(msg, *reports, "All logs: make server-logs")

    def _log_tail(self, status: ServiceStatus) -> str:
        output = self._docker("logs", "--tail", "15", status.container, check=False)
        return f"{status.service} ({status.health or status.state}): {tail(output, 15)}"
