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
INSTALL = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
JOIN_GROUP = "sudo usermod --append --groups docker $USER"


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


def choose_action(host: HostInfo, answer: str, *, may_install: bool) -> Literal["start", "install"]:
    """Choose how to provide an engine if none is reachable, or raise the remedy.

    Parameters
    ----------
    host
        The properties of this machine.
    answer
        The output of the docker command.
    may_install
        Whether packages may be installed.
    """
    none = "there is no Docker engine on this machine"
    if "permission denied" in answer.lower():
        problem = f"the engine at {host.address} refuses access to this user"
        remedy = [f"Join its group, then log in again:  {JOIN_GROUP}"]
    elif host.address != LOCAL_SOCKET:
        problem = f"no Docker engine is reachable at {host.address} (DOCKER_HOST, or the current docker context)"
        remedy = ["Start it, or unset DOCKER_HOST (or `docker context use default`) to use an engine on this machine."]
    elif not host.is_linux:
        problem = "no Docker engine is reachable"
        remedy = ["Start Docker Desktop (or colima, or OrbStack); to install it: https://docs.docker.com/get-docker/"]
    elif host.has_dockerd and host.has_client:
        if host.is_root:
            return "start"
        problem, remedy = "a Docker engine is installed but not running", ["Start it:  sudo systemctl start docker"]
    elif not host.is_debian:
        guide = "https://docs.docker.com/engine/install/"
        problem, remedy = none, [f"Install Docker Engine, start it, and try again: {guide}"]
    elif not host.is_root:
        problem = none
        remedy = [f"Install Debian's:  sudo {INSTALL}", f"and join its group, then log in again:  {JOIN_GROUP}"]
    elif not may_install:
        problem = f"{none}, and NO_INSTALL forbids its installation"
        remedy = [f"Install Debian's yourself:  {INSTALL}", "or omit NO_INSTALL to have the launcher install it."]
    else:
        return "install"
    raise LauncherError(problem, *remedy, exit_code=EXIT_UNAVAILABLE)


class Engine:
    """The engine, as used by one command."""

    def __init__(self, docker: Docker, services: Services, paths: ProjectPaths) -> None:
        self._docker = docker
        self._services = services
        self._logs = paths.logs
        self._pid_file = paths.cache / "dockerd.pid"
        self._lock_file = paths.cache / "engine.lock"
        self._lock: IO[bytes] | None = None

    def ensure(self, step: Step, *, may_install: bool) -> None:
        """Provide a reachable engine, and pass its address to child processes."""
        self._lock_file.parent.mkdir(parents=True, exist_ok=True)
        self._lock = self._lock_file.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        how = "is running"
        if not self._is_reachable() and self._is_starting():
            step.update("waiting until it has started")
            wait_until(self._is_reachable, 20, every=0.5)
        version, answer = self._version()
        if version is None:
            how = "started"
            if choose_action(HostInfo.detect(self._docker), answer, may_install=may_install) == "install":
                step.announce(f"there is none: installing Debian's ({', '.join(PACKAGES)})")
                debian.install(self._docker.commands, PACKAGES, self._logs / "apt.log")
                how = "installed and started"
            step.update("starting it")
            self._start()
            version = self._version()[0]
        endpoint = os.environ.get("DOCKER_HOST") or self._docker.endpoint()
        if endpoint and endpoint != LOCAL_SOCKET:
            # Airflow's tasks speak to the engine without the command line and its contexts
            os.environ["DOCKER_HOST"] = endpoint
        step.done(f"Docker {version} {how}")

    def keep_running(self) -> None:
        """Keep the engine running after this command, until `make down`."""
        if record := self._services.find(SERVICE):
            self._services.assign(record, owner="up")
        self._drop_lock()

    def stop(self, *, also_kept: bool = True) -> str | None:
        """Stop the engine if the launcher started it and no other command uses it; returns a report.

        Parameters
        ----------
        also_kept
            Whether to stop an engine that is kept running until `make down`.
        """
        record = self._services.find(SERVICE)
        report = None
        if record is not None and (also_kept or record.owner != "up"):
            if not self._is_last_user():
                report = "kept the Docker engine running: another command of this checkout uses it"
            elif self._has_unrelated_containers():
                report = "kept the Docker engine running: it has containers of other projects"
            else:
                self._services.stop(SERVICE, grace=STOP_SECONDS)
                self._pid_file.unlink(missing_ok=True)
                report = "stopped the Docker engine"
        self._drop_lock()
        return report

    def _version(self) -> tuple[str | None, str]:
        """Give the engine's version or, if it is not reachable, the output of the docker command."""
        try:
            return self._docker.server_version(), ""
        except CommandError as error:
            return None, error.output
        except OSError:  # no docker command
            return None, ""

    def _is_reachable(self) -> bool:
        return self._version()[0] is not None

    @staticmethod
    def _is_starting() -> bool:
        return any(process.info["name"] == SERVICE for process in psutil.process_iter(["name"]))

    def _start(self) -> None:
        dockerd, log = find_dockerd(), self._logs / "dockerd.log"
        if dockerd is None:
            msg = "Debian's docker.io was installed, but there is no dockerd"
            raise LauncherError(msg, "Is /usr/sbin complete?", exit_code=EXIT_UNAVAILABLE)
        # the pid file of a killed engine would prevent the new one from starting
        self._pid_file.unlink(missing_ok=True)
        environment = {"PATH": f"{os.environ.get('PATH', '')}:{SBIN}"}
        command = [dockerd, "--pidfile", str(self._pid_file)]
        record = self._services.start(SERVICE, command, owner="run", log=log, env=environment)
        wait_until(lambda: self._is_reachable() or not record.alive, START_SECONDS, every=0.3)
        if not self._is_reachable():
            self._services.stop(SERVICE, grace=5)
            details = tail(log.read_text(errors="replace"), 15), f"The full log: {log}"
            raise LauncherError("the Docker engine did not start", *details, exit_code=EXIT_UNAVAILABLE)

    def _is_last_user(self) -> bool:
        self._lock = self._lock or self._lock_file.open("ab")
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
            return bool(set(self._docker.running_containers()) - set(self._docker.containers("numerai")))
        except (CommandError, OSError):
            return False
