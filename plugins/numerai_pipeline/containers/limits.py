"""The sandbox of a model container: no network, no capabilities, a read-only root, hard limits, and a capped log.

The socket proxy (``docs/deployment/socket-proxy.md``) accepts no other container: a change here changes its rules.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from docker import types

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient
    from docker.types import Mount

CPU_PERIOD = 100_000  # microseconds
LOG_DRIVER = "json-file"
"""A driver whose logs can be read back, on an engine and in a swarm, whatever the engine's default is."""
LOG_OPTIONS = {"max-size": "10m", "max-file": "3"}
"""The engine keeps the last 20 to 30 MB of a container's log; the task reads each line when it is written."""


def sandbox_host_config(
    client: APIClient, mounts: Sequence[Mount], *, memory: int, cores: int, gpus: int | Literal["all"] = 0
) -> Any:
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
    gpus : int or "all", optional
        Number of GPUs, or all of the host's.
    """
    devices = [types.DeviceRequest(count=-1 if gpus == "all" else gpus, capabilities=[["gpu"]])] if gpus else None
    return client.create_host_config(
        mounts=list(mounts),
        mem_limit=memory * 2**20,
        memswap_limit=memory * 2**20,
        # a share of processor time, which may exceed the host's, so that no query of the host's size is necessary
        cpu_period=CPU_PERIOD,
        cpu_quota=cores * CPU_PERIOD,
        pids_limit=4096,
        log_config=types.LogConfig(type=LOG_DRIVER, config=LOG_OPTIONS),
        network_mode="none",
        init=True,
        read_only=True,
        tmpfs={"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 - a path of the container
        cap_drop=["ALL"],
        security_opt=["no-new-privileges"],
        shm_size="1g",
        device_requests=devices,
    )
