"""The sandbox of a model container: no network, no capabilities, a read-only root, and hard limits.

The socket proxy (``docs/deployment/socket-proxy.md``) accepts no other container: a change here changes its rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient
    from docker.types import Mount

CPU_PERIOD = 100_000  # microseconds


def sandbox_host_config(client: APIClient, mounts: Sequence[Mount], *, memory: int, cores: int) -> Any:
    """Return the host configuration of a container in the sandbox.

    Parameters
    ----------
    client : APIClient
        The engine's client.
    mounts : sequence of Mount
        Its mounts, with paths of the engine's host.
    memory : int
        Hard memory limit, MiB, without swap.
    cores : int
        Hard limit of processor cores; all of the host's if it has fewer.
    """
    return client.create_host_config(
        mounts=list(mounts),
        mem_limit=memory * 2**20,
        memswap_limit=memory * 2**20,
        # a share of processor time, which may exceed the host's, so that no query of the host's size is necessary
        cpu_period=CPU_PERIOD,
        cpu_quota=cores * CPU_PERIOD,
        pids_limit=4096,
        network_mode="none",
        init=True,
        read_only=True,
        tmpfs={"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 - a path of the container
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size="1g",
    )
