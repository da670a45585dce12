"""Separate Docker engines for the suite, joined to a swarm."""

from __future__ import annotations

import contextlib
import subprocess

from tests.faults.engine import EngineProcess

MANAGER, WORKER = "10.77.0.1", "10.77.0.2"


class SwarmNode(EngineProcess):
    """An engine in a separate network namespace with loopback, which a swarm needs."""

    def own_network(self) -> list[str]:
        """Enable the loopback first."""
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']

    def init_swarm(self, address: str = "127.0.0.1") -> None:
        """Make it the first manager of a swarm."""
        with contextlib.closing(self.client) as client:
            client.swarm.init(advertise_addr=address, listen_addr=f"{address}:2377")

    def join(self, manager: SwarmNode) -> str:
        """Make it a worker of a manager's swarm, over a cable between their two networks; returns its id."""
        ends = ((manager, MANAGER), (self, WORKER))
        cable = [["name", "swarm0", "netns", str(node.pid)] for node, _ in ends]
        _run("ip", "link", "add", *cable[0], "type", "veth", "peer", *cable[1])
        for node, address in ends:
            inside = ("nsenter", f"--target={node.pid}", "--net", "ip")
            _run(*inside, "address", "add", f"{address}/24", "dev", "swarm0")
            _run(*inside, "link", "set", "swarm0", "up")
        manager.init_swarm(MANAGER)
        with contextlib.closing(manager.client) as client, contextlib.closing(self.client) as own:
            token = client.api.inspect_swarm()["JoinTokens"]["Worker"]
            own.swarm.join([f"{MANAGER}:2377"], token, advertise_addr=WORKER, listen_addr=f"{WORKER}:2377")
            return str(own.info()["Swarm"]["NodeID"])

    @property
    def pid(self) -> int:
        """The engine's process id."""
        assert self._process is not None
        return self._process.pid


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
