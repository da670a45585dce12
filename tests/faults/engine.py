"""A separate Docker engine for the suite, which tests stop, kill and start.

As under systemd, ``containerd`` is a separate service that keeps running when ``dockerd`` is killed.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import docker
import psutil
import requests

from launcher.engine import find_dockerd
from launcher.processes import wait_until

UNREACHABLE_ERRORS = (docker.errors.DockerException, requests.RequestException, OSError)
START_SECONDS = 60.0


class EngineProcess:
    """A ``dockerd`` with all its files in one folder.

    Attributes
    ----------
    address : str
        Its address, for DOCKER_HOST.
    """

    def __init__(self) -> None:
        # the path of a socket has at most 107 characters
        self.folder = Path(tempfile.mkdtemp(prefix="faults-"))
        self.address = f"unix://{self.folder}/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self._live_restore = False
        self._containerd = self._start_containerd()

    def _start_containerd(self) -> subprocess.Popen[bytes]:
        settings = (
            f'version = 2\nroot = "{self.folder}/containerd"\nstate = "{self.folder}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\naddress = "{self._containerd_socket}"\n'
        )
        (self.folder / "containerd.toml").write_text(settings)
        with (self.folder / "containerd.log").open("ab") as log:
            process = subprocess.Popen(
                ["containerd", f"--config={self.folder}/containerd.toml"],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        assert wait_until(self._containerd_socket.exists, START_SECONDS, every=0.1)
        return process

    @property
    def _containerd_socket(self) -> Path:
        return self.folder / "containerd.sock"

    @property
    def client(self) -> docker.DockerClient:
        """A new connection."""
        return docker.DockerClient(self.address, timeout=20)

    def start(self, *, live_restore: bool | None = None) -> None:
        """Start the engine and wait until it answers."""
        if live_restore is not None:
            self._live_restore = live_restore
        program = find_dockerd()
        assert program is not None, "these tests need dockerd"
        pid_file = self.folder / "dockerd.pid"
        pid_file.unlink(missing_ok=True)
        (self.folder / "config.json").write_text("{}")
        with (self.folder / "dockerd.log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *self.own_network(),
                    program,
                    f"--host={self.address}",
                    f"--containerd={self._containerd_socket}",
                    f"--pidfile={pid_file}",
                    f"--config-file={self.folder}/config.json",
                    f"--data-root={self.folder}/data",
                    f"--exec-root={self.folder}/exec",
                    "--bridge=none",
                    "--iptables=false",
                    f"--live-restore={str(self._live_restore).lower()}",
                ],
                stdout=log,
                stderr=log,
                start_new_session=True,
                env=_environment(),
            )
        answered = wait_until(self.answers, START_SECONDS, every=0.1)
        assert answered, (self.folder / "dockerd.log").read_text()[-2000:]

    def own_network(self) -> list[str]:
        """Return the command prefix that starts a program in a separate network namespace.

        Otherwise --bridge=none would remove the bridge of the machine's engine.
        """
        return ["unshare", "--net"]

    def answers(self) -> bool:
        """Whether the engine answers."""
        try:
            with contextlib.closing(self.client) as client:
                return bool(client.ping())
        except UNREACHABLE_ERRORS:
            return False

    def end(self, number: signal.Signals) -> None:
        """Send a signal and wait for the end of the process; containers are not touched."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(timeout=60)

    def restart(self, *, live_restore: bool) -> None:
        """Restart the engine if this option differs from the current one."""
        if live_restore != self._live_restore:
            self.end(signal.SIGTERM)
            self.start(live_restore=live_restore)

    def pause(self) -> None:
        """Stop the process, so that calls are accepted and not answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Continue the paused process."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def load(self, image: str) -> None:
        """Copy an image from the machine's engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "--host", self.address, "load"], stdin=saving.stdout, check=True)

    def containers(self) -> list[dict[str, str]]:
        """List all containers, running or not: id, state and labels."""
        with contextlib.closing(self.client) as client:
            found: list[dict[str, str]] = client.api.containers(all=True)
            return found

    def remove_containers(self) -> int:
        """Remove all containers; return their number."""
        found = self.containers()
        with contextlib.closing(self.client) as client:
            for container in found:
                with contextlib.suppress(docker.errors.APIError):
                    client.api.remove_container(container["Id"], force=True, v=True)
        return len(found)

    def close(self) -> None:
        """End all processes of the engine, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(*UNREACHABLE_ERRORS):
                self.remove_containers()
            self.end(signal.SIGTERM)
        self._containerd.terminate()
        self._containerd.wait(timeout=20)
        # the shim of a running container keeps running after both
        own = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
        ]
        for process in own:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(own, timeout=10)
        for mounted in reversed(_mounts_below(self.folder)):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(self.folder)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def _mounts_below(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted(place for place in places if place.startswith(f"{folder}/"))
