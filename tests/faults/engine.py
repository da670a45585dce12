"""A Docker engine of the suite's own, beside the machine's, to be stopped, killed and started at will.

As where systemd starts them, ``containerd`` is a service of its own, which outlives a ``dockerd`` that is killed.
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

SILENT = (docker.errors.DockerException, requests.RequestException, OSError)
START_SECONDS = 60.0


class OwnEngine:
    """A ``dockerd`` with everything it has in one folder.

    Attributes
    ----------
    address : str
        Its address, for DOCKER_HOST.
    """

    def __init__(self) -> None:
        # the path of a socket may have 107 characters
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
        """Start it and wait until it answers."""
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
        """Give the words that start a program in a network of its own.

        Without one it would take the bridge of the machine's engine away, which --bridge=none does.
        """
        return ["unshare", "--net"]

    def answers(self) -> bool:
        """Whether it answers."""
        try:
            with contextlib.closing(self.client) as client:
                return bool(client.ping())
        except SILENT:
            return False

    def end(self, number: signal.Signals) -> None:
        """End it by a signal and wait until it is gone; its containers are its own business."""
        assert self._process is not None
        self._process.send_signal(number)
        self._process.wait(timeout=60)

    def restart(self, *, live_restore: bool) -> None:
        """Start it anew where it is not set like that yet."""
        if live_restore != self._live_restore:
            self.end(signal.SIGTERM)
            self.start(live_restore=live_restore)

    def pause(self) -> None:
        """Have it take no orders though its socket is there."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it take orders again."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def load(self, image: str) -> None:
        """Bring an image over from the machine's engine."""
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saving:
            subprocess.run(["docker", "--host", self.address, "load"], stdin=saving.stdout, check=True)

    def containers(self) -> list[dict[str, str]]:
        """List all its containers, working or not: id, state and labels."""
        with contextlib.closing(self.client) as client:
            found: list[dict[str, str]] = client.api.containers(all=True)
            return found

    def remove_containers(self) -> int:
        """Remove all of them; says how many there were."""
        found = self.containers()
        with contextlib.closing(self.client) as client:
            for container in found:
                with contextlib.suppress(docker.errors.APIError):
                    client.api.remove_container(container["Id"], force=True, v=True)
        return len(found)

    def close(self) -> None:
        """End it with all its processes, and remove its folder."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(*SILENT):
                self.remove_containers()
            self.end(signal.SIGTERM)
        self._containerd.terminate()
        self._containerd.wait(timeout=20)
        # the helper of a container that was not ended outlives both
        mine = [
            process
            for process in psutil.process_iter(["cmdline"])
            if str(self.folder) in " ".join(process.info["cmdline"] or ())
        ]
        for process in mine:
            with contextlib.suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(mine, timeout=10)
        for mounted in reversed(_mounts_below(self.folder)):
            subprocess.run(["umount", "--lazy", mounted], check=False)
        shutil.rmtree(self.folder)


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def _mounts_below(folder: Path) -> list[str]:
    places = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    return sorted(place for place in places if place.startswith(f"{folder}/"))
