"""The Docker engine: use a reachable one, else start or install one, and stop it again if the launcher started it.

Whether to stop it is decided by files in the checkout, not by memory: a record has the command for which the launcher
started it, and every command that uses it holds a shared lock. The last command to end stops it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Literal

import psutil

from launcher import debian
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, tail, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.paths import ProjectPaths
    from launcher.processes import Services

PACKAGES = ("docker.io", "iptables")
LOCAL_SOCKET = "unix:///var/run/docker.sock"
SERVICE = "dockerd"
START_SECONDS = 60.0
STOP_SECONDS = 13.0
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

EngineAction = Literal["start", "install"]


@dataclass(frozen=True)
class HostInfo:
    """The properties of this machine that decide how to provide an engine."""

    address: str
    is_linux: bool
    is_root: bool
    is_debian: bool
    has_dockerd: bool
    has_client: bool

    @classmethod
    def detect(cls, docker: Docker) -> HostInfo:
        """Detect the properties of this machine."""
        return cls(
            address=os.environ.get("DOCKER_HOST") or docker.endpoint() or LOCAL_SOCKET,
            is_linux=sys.platform == "linux",
            is_root=debian.is_root(),
            is_debian=debian.is_debian(),
            has_dockerd=find_dockerd() is not None,
            has_client=shutil.which("docker") is not None,
        )


def find_dockerd() -> str | None:
    """Path of the engine's program, which is often not on an ordinary user's PATH."""
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:{SBIN}")


def choose_action(host: HostInfo, answer: str, *, may_install: bool) -> EngineAction:
    """Choose how to provide an engine if none is reachable.

    Parameters
    ----------
    host
        The properties of this machine.
    answer
        The output of the docker command.
    may_install
        Whether packages may be installed.

    Raises
    ------
    LauncherError
        When the user must act, with the remedy.
    """
    if "permission denied" in answer.lower():
        raise _unavailable(
            f"the engine at {host.address} refuses access to this user",
            "Join its group, then log in again:  sudo usermod --append --groups docker $USER",
        )
    if host.address != LOCAL_SOCKET:
        raise _unavailable(
            f"no Docker engine is reachable at {host.address} (DOCKER_HOST, or the current docker context)",
            "Start it, or unset DOCKER_HOST (or `docker context use default`) to use an engine on this machine.",
        )
    if not host.is_linux:
        raise _unavailable(
            "no Docker engine is reachable",
            "Start Docker Desktop (or colima, or OrbStack); to install it: https://docs.docker.com/get-docker/",
        )
    if host.has_dockerd and host.has_client:
        if host.is_root:
            return "start"
        raise _unavailable("a Docker engine is installed but not running", "Start it:  sudo systemctl start docker")
    if not host.is_debian:
        raise _unavailable(
            "there is no Docker engine on this machine",
            "Install Docker Engine, start it, and try again: https://docs.docker.com/engine/install/",
        )
    command = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    if not host.is_root:
        raise _unavailable(
            "there is no Docker engine on this machine",
            f"Install Debian's:  sudo {command}",
            "and join its group, then log in again:  sudo usermod --append --groups docker $USER",
        )
    if not may_install:
        raise _unavailable(
            "there is no Docker engine on this machine, and NO_INSTALL forbids its installation",
            f"Install Debian's yourself:  {command}",
            "or omit NO_INSTALL to have the launcher install it.",
        )
    return "install"


class Engine:
    """The engine, as used by one command."""

    def __init__(self, docker: Docker, services: Services, paths: ProjectPaths) -> None:
        self._docker = docker
        self._services = services
        self._paths = paths
        self._lock: IO[bytes] | None = None

    def ensure(self, step: Step, *, owner: str, may_install: bool) -> None:
        """Provide a reachable engine, and pass its address to child processes.

        Raises
        ------
        LauncherError
            When the user must act, with the remedy.
        """
        self._take_lock()
        version, answer = self._version()
        how = "is running"
        if version is None and self._is_starting():
            step.update("waiting until it has started")
            wait_until(lambda: self._version()[0] is not None, 20, every=0.5)
            version, answer = self._version()
        if version is None:
            how = "started"
            if choose_action(HostInfo.detect(self._docker), answer, may_install=may_install) == "install":
                step.update(f"there is none: installing Debian's ({', '.join(PACKAGES)})")
                debian.install(self._docker.commands, PACKAGES, self._paths.logs / "apt.log")
                how = "installed and started"
            step.update("starting it")
            self._start(owner)
            version = self._version()[0]
        endpoint = os.environ.get("DOCKER_HOST") or self._docker.endpoint()
        if endpoint and endpoint != LOCAL_SOCKET:
            # Airflow's tasks speak to the engine without the command line and its contexts
            os.environ["DOCKER_HOST"] = endpoint
        step.done(f"Docker {version} {how}")

    def keep_running(self) -> None:
        """Keep the engine running after this command, until `make down`."""
        record = self._services.find(SERVICE)
        if record is not None:
            self._services.assign(record, owner="up")
        self._drop_lock()

    def release(self) -> str | None:
        """Stop the engine if the launcher started it for `run` and no other command uses it; returns a report."""
        record = self._services.find(SERVICE)
        if record is None or record.owner == "up":
            self._drop_lock()
            return None
        return self.stop()

    def stop(self) -> str | None:
        """Stop the engine if the launcher started it and no other command uses it; returns a report."""
        record = self._services.find(SERVICE)
        if record is None:
            self._drop_lock()
            return None
        if not self._is_last_user():
            self._drop_lock()
            return "kept the Docker engine running: another command of this checkout uses it"
        if self._has_unrelated_containers():
            self._drop_lock()
            return "kept the Docker engine running: it has containers of other projects"
        self._services.stop(SERVICE, grace=STOP_SECONDS)
        self._pid_file.unlink(missing_ok=True)
        self._drop_lock()
        return "stopped the Docker engine"

    @property
    def _pid_file(self) -> Path:
        return self._paths.cache / "dockerd.pid"

    def _version(self) -> tuple[str | None, str]:
        try:
            return self._docker.server_version(), ""
        except CommandError as error:
            return None, error.output
        except OSError as error:
            return None, f"no docker command: {error}" if not isinstance(error, PermissionError) else "not executable"

    @staticmethod
    def _is_starting() -> bool:
        return any(process.info["name"] == SERVICE for process in psutil.process_iter(["name"]))

    def _start(self, owner: str) -> None:
        dockerd = find_dockerd()
        if dockerd is None:
            raise _unavailable("Debian's docker.io was installed, but there is no dockerd", "Is /usr/sbin complete?")
        log = self._paths.logs / "dockerd.log"
        # the pid file of a killed engine would prevent the new one from starting
        self._pid_file.unlink(missing_ok=True)
        record = self._services.start(
            SERVICE,
            [dockerd, "--pidfile", self._pid_file],
            owner=owner,
            log=log,
            env={"PATH": f"{os.environ.get('PATH', '')}:{SBIN}"},
        )
        answered = wait_until(lambda: self._version()[0] is not None or not record.alive, START_SECONDS, every=0.3)
        if not answered or self._version()[0] is None:
            self._services.stop(SERVICE, grace=5)
            raise _unavailable(
                "the Docker engine did not start", tail(log.read_text(errors="replace"), 15), f"The full log: {log}"
            )

    def _take_lock(self) -> None:
        path = self._paths.cache / "engine.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _is_last_user(self) -> bool:
        if self._lock is None:
            self._lock = (self._paths.cache / "engine.lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _drop_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _has_unrelated_containers(self) -> bool:
        try:
            return bool(set(self._docker.running_containers()) - set(self._docker.containers(numerai="")))
        except (CommandError, OSError):
            return False


def _unavailable(message: str, *details: str) -> LauncherError:
    return LauncherError(message, *details, exit_code=EXIT_UNAVAILABLE)
