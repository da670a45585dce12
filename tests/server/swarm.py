"""Docker engines of the suite's own, joined to a swarm."""

from __future__ import annotations

import contextlib

from tests.faults.engine import OwnEngine


class SwarmNode(OwnEngine):
    """An engine in a network of its own, whose loopback is up: a swarm talks to itself over it."""

    def own_network(self) -> list[str]:
        """Bring the loopback up first."""
        return ["unshare", "--net", "sh", "-c", 'ip link set lo up && exec "$0" "$@"']

    def init_swarm(self, address: str = "127.0.0.1") -> None:
        """Make it the first manager of a swarm."""
        with contextlib.closing(self.client) as client:
            client.swarm.init(advertise_addr=address, listen_addr=f"{address}:2377")
