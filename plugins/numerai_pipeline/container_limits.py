"""What every container of ours may do: compute, within limits, and nothing else.

The socket proxy (``docs/socket-proxy.md``) lets no other container be made: a change here is a change of its rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient
    from docker.types import Mount

CPU_PERIOD = 100_000  # microseconds


def locked_down(client: APIClient, mounts: Sequence[Mount], *, memory: int, cores: int) -> Any:
    """Host configuration of a container without network and rights, whose root file system is read-only.

    Parameters
    ----------
    client : APIClient
        The engine's client.
    mounts : sequence of Mount
        What it sees of the data volume.
    memory : int
        Hard limit, MiB; there is no swap beyond it.
    cores : int
        Hard limit, where the engine's host has more.
    """
    return client.create_host_config(
        mounts=list(mounts),
        mem_limit=memory * 2**20,
        memswap_limit=memory * 2**20,
        # a share of time, which may be more than the host has: so nobody has to ask the engine how much that is
        cpu_period=CPU_PERIOD,
        cpu_quota=cores * CPU_PERIOD,
        pids_limit=4096,
        network_mode="none",
        init=True,
        read_only=True,
        tmpfs={"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 - the container's own, gone with it
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size="1g",
    )
