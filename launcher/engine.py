"""The Docker engine: use the one that answers, else start or install one, and stop what we started.

Whether to stop it is decided by files in the checkout, not by memory: a record says that we started it and for which
command, and every command that uses it holds a shared lock. The last one out stops it, and only if we started it.
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
from launcher.processes import CommandError, end_of, wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.checkout import Checkout
    from launcher.console import Step
    from launcher.docker_cli import Docker
    from launcher.processes import Services

PACKAGES = ("docker.io", "iptables")
LOCAL_SOCKET = "unix:///var/run/docker.sock"
SERVICE = "dockerd"
START_SECONDS = 60.0
STOP_SECONDS = 13.0
SBIN = "/usr/local/sbin:/usr/sbin:/sbin"

Remedy = Literal["start", "install"]


@dataclass(frozen=True)
class Machine:
    """What decides how to come by an engine."""

    address: str
    is_linux: bool
    is_root: bool
    is_debian: bool
    has_dockerd: bool
    has_client: bool

    @classmethod
    def look(cls, docker: Docker) -> Machine:
        """Look at this machine."""
        return cls(
            address=os.environ.get("DOCKER_HOST") or docker.endpoint() or LOCAL_SOCKET,
            is_linux=sys.platform == "linux",
            is_root=debian.is_root(),
            is_debian=debian.is_debian(),
            has_dockerd=find_dockerd() is not None,
            has_client=shutil.which("docker") is not None,
        )


def find_dockerd() -> str | None:
    """Path of the engine's program; it is often not on an ordinary user's path."""
    return shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:{SBIN}")


def choose_remedy(machine: Machine, answer: str, *, may_install: bool) -> Remedy:
    """Decide what to do where no engine answers.

    Parameters
    ----------
    machine
        What there is.
    answer
        What the docker command said instead.
    may_install
        Whether packages may be installed.

    Raises
    ------
    LauncherError
        Where nothing can be done without the user: what exactly they can do.
    """
    if "permission denied" in answer.lower():
        raise _unavailable(
            f"the engine at {machine.address} does not let you in",
            "Join its group, then log in again:  sudo usermod --append --groups docker $USER",
        )
    if machine.address != LOCAL_SOCKET:
        raise _unavailable(
            f"no Docker engine answers at {machine.address} (DOCKER_HOST, or the current docker context)",
            "Start it, or unset DOCKER_HOST (or `docker context use default`) to use an engine on this machine.",
        )
    if not machine.is_linux:
        raise _unavailable(
            "no Docker engine answers",
            "Start Docker Desktop (or colima, or OrbStack); to install it: https://docs.docker.com/get-docker/",
        )
    if machine.has_dockerd and machine.has_client:
        if machine.is_root:
            return "start"
        raise _unavailable("a Docker engine is installed but not running", "Start it:  sudo systemctl start docker")
    if not machine.is_debian:
        raise _unavailable(
            "there is no Docker engine on this machine",
            "Install Docker Engine, start it, and try again: https://docs.docker.com/engine/install/",
        )
    command = f"apt-get install --no-install-recommends {' '.join(PACKAGES)}"
    if not machine.is_root:
        raise _unavailable(
            "there is no Docker engine on this machine",
            f"Install Debian's:  sudo {command}",
            "and join its group, then log in again:  sudo usermod --append --groups docker $USER",
        )
    if not may_install:
        raise _unavailable(
            "there is no Docker engine on this machine, and NO_INSTALL forbids installing one",
            f"Install Debian's yourself:  {command}",
            "or leave NO_INSTALL out and it is done for you.",
        )
    return "install"


class Engine:
    """The engine as one command uses it."""

    def __init__(self, docker: Docker, services: Services, checkout: Checkout) -> None:
        self._docker = docker
        self._services = services
        self._checkout = checkout
        self._lock: IO[bytes] | None = None

    def ensure(self, step: Step, *, owner: str, may_install: bool) -> None:
        """See to it that an engine answers, and that our children find the same one.

        Raises
        ------
        LauncherError
            Where that takes the user.
        """
        self._take_lock()
        version, answer = self._version()
        how = "answers"
        if version is None and self._is_starting():
            step.update("waiting for the one that is starting")
            wait_until(lambda: self._version()[0] is not None, 20, every=0.5)
            version, answer = self._version()
        if version is None:
            how = "started"
            if choose_remedy(Machine.look(self._docker), answer, may_install=may_install) == "install":
                step.update(f"there is none: installing Debian's ({', '.join(PACKAGES)})")
                debian.install(self._docker.commands, PACKAGES, self._checkout.logs / "apt.log")
                how = "installed and started"
            step.update("starting it")
            self._start(owner)
            version = self._version()[0]
        endpoint = os.environ.get("DOCKER_HOST") or self._docker.endpoint()
        if endpoint and endpoint != LOCAL_SOCKET:
            # Airflow's tasks speak to the engine without the command line and its contexts
            os.environ["DOCKER_HOST"] = endpoint
        step.done(f"Docker {version} {how}")

    def keep(self) -> None:
        """Leave the engine running when this command ends, until `make down`."""
        record = self._services.find(SERVICE)
        if record is not None:
            self._services.adopt(record, owner="up")
        self._drop_lock()

    def release(self) -> str | None:
        """Stop the engine if we started it, nobody else uses it, and it is not kept up; says what was done."""
        record = self._services.find(SERVICE)
        if record is None or record.owner == "up":
            self._drop_lock()
            return None
        return self.stop()

    def stop(self) -> str | None:
        """Stop the engine if we started it and nobody else uses it; says what was done."""
        record = self._services.find(SERVICE)
        if record is None:
            self._drop_lock()
            return None
        if not self._is_last_user():
            self._drop_lock()
            return "left the Docker engine running: another command of this checkout uses it"
        if self._has_foreign_containers():
            self._drop_lock()
            return "left the Docker engine running: there are containers in it that are not ours"
        self._services.stop(SERVICE, grace=STOP_SECONDS)
        self._pid_file.unlink(missing_ok=True)
        self._drop_lock()
        return "stopped the Docker engine"

    @property
    def _pid_file(self) -> Path:
        return self._checkout.cache / "dockerd.pid"

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
            raise _unavailable("Debian's docker.io was installed, yet there is no dockerd", "Is /usr/sbin complete?")
        log = self._checkout.logs / "dockerd.log"
        # left by an engine that was killed, it would keep the new one from starting
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
                "the Docker engine did not start", end_of(log.read_text(errors="replace"), 15), f"The full log: {log}"
            )

    def _take_lock(self) -> None:
        path = self._checkout.cache / "engine.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = path.open("ab")
        fcntl.flock(self._lock, fcntl.LOCK_SH)

    def _is_last_user(self) -> bool:
        if self._lock is None:
            self._lock = (self._checkout.cache / "engine.lock").open("ab")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _drop_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _has_foreign_containers(self) -> bool:
        try:
            return bool(set(self._docker.running_containers()) - set(self._docker.containers(numerai="")))
        except (CommandError, OSError):
            return False


def _unavailable(message: str, *details: str) -> LauncherError:
    return LauncherError(message, *details, exit_code=EXIT_UNAVAILABLE)
