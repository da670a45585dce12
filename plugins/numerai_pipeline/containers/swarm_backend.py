"""Containers as services of a Docker Swarm, each on the node that has enough free memory and cores.

A service has one container, which the swarm never restarts (restart condition ``none``): only Airflow starts another
attempt, as it has the information whether that can help.

Properties of swarm services that this backend handles: a service may wait for a node for an unlimited time; its log
cannot be followed to an end, and reading it blocks while its node is unreachable (``swarm_api.py``); after its
removal its container runs for another moment; a missing image is a rejected task and not an error; a node ends
containers that fail their health check. ``docs/deployment/swarm.md`` lists the limits of a swarm.
"""

from __future__ import annotations

import logging
import time
import uuid
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import docker.errors
from docker import types

from numerai_pipeline.containers.data_volume import find_data_volume
from numerai_pipeline.containers.engine import is_connection_error
from numerai_pipeline.containers.engine_connection import EngineConnection
from numerai_pipeline.containers.exit_codes import ContainerError, error_from_exit
from numerai_pipeline.containers.limits import LOG_DRIVER, LOG_OPTIONS
from numerai_pipeline.containers.mounts import mount_on_host
from numerai_pipeline.containers.swarm_api import (
    GPU_RESOURCE,
    NodeUnreachableError,
    find_services,
    largest_node,
    largest_number_of_gpus,
    read_log,
    remove_service,
    request_removal,
    service_last_change,
    service_state,
)
from numerai_pipeline.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from docker import APIClient

    from numerai_pipeline.containers.backend import Connect, ContainerRequest, ContainerState, FoundContainer
    from numerai_pipeline.containers.log import ContainerLog
    from numerai_pipeline.core.errors import PipelineError
    from numerai_pipeline.core.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
# The engine resolves names for containers of an internal network, and so forwards their queries to the outside, unless
# their resolver is an address that they cannot reach themselves. This one is reserved for documentation (RFC 5737).
_UNREACHABLE_RESOLVER = "192.0.2.1"
# the docker library has no class for it
_NO_NEW_PRIVILEGES: Any = {"NoNewPrivileges": True}
_FIRST_API_WITH_NO_NEW_PRIVILEGES = (1, 44)


class SwarmBackend:
    """Runs containers as services of the swarm whose manager ``connect`` returns a connection to."""

    kind = "service"

    def __init__(self, connect: Connect, settings: Settings) -> None:
        self._connect = connect
        self._settings = settings

    @property
    def _client(self) -> APIClient:
        return self._connect()

    def prepare(self, request: ContainerRequest) -> None:
        """Check the manager and the GPUs of the swarm, and create the internal network if it is missing.

        Nodes pull the image themselves.
        """
        client = self._client
        swarm = client.info()["Swarm"]
        if swarm["LocalNodeState"] == "inactive" or (
            swarm["LocalNodeState"] == "active" and not swarm["ControlAvailable"]
        ):
            msg = (
                "NUMERAI_ENGINE=swarm needs a manager of a swarm, and the engine at"
                f" {EngineConnection.from_environment().url} is none (state: {swarm['LocalNodeState']}): run `docker"
                " swarm init` there, or set DOCKER_HOST to a manager"
            )
            raise BadInputError(msg)
        _require_gpus(client, request)
        _require_network(client, self._settings.swarm_network)

    def create(self, request: ContainerRequest) -> str:
        """Create a service, which the swarm starts by itself, and return its id."""
        client: Any = self._client  # its types do not include services
        self._warn_about_swarm_limits(client)
        service = client.create_service(
            types.TaskTemplate(
                self._container_spec(client, request),
                resources=_resources(client, request),
                restart_policy=types.RestartPolicy("none"),
                networks=[self._settings.swarm_network],
                placement=types.Placement(constraints=list(self._settings.swarm_constraints)),
                log_driver=types.DriverConfig(LOG_DRIVER, LOG_OPTIONS),
            ),
            # for people only: code identifies a service by its labels
            name=f"numerai-{request.task[:40]}-{uuid.uuid4().hex[:8]}",
            labels=request.labels.to_dict(),
            mode=types.ServiceMode("replicated", replicas=1),
        )
        return str(service["ID"])

    def start(self, container_id: str, request: ContainerRequest) -> None:
        """Do nothing: the swarm starts a service when it is created."""

    def find(self, filters: Sequence[str]) -> list[FoundContainer]:
        """List the services with all of these labels."""
        return find_services(self._client, filters)

    def inspect(self, container_id: str) -> ContainerState:
        """Return the state of a service's container."""
        return service_state(self._client, container_id)

    def stream_log(self, container_id: str, log: ContainerLog, *, until_end: bool) -> None:
        """Write new lines to the log; with ``until_end`` pause then, since a service's log cannot be followed."""
        since = int(datetime.fromisoformat(log.read_until).timestamp()) if log.read_until else 0
        try:
            frames = read_log(self._client, container_id, since)
        except NodeUnreachableError as error:
            _warn_about_gaps(str(error))
            frames = []
        log.follow(_container_lines(frames), until_end=False)
        if until_end:
            time.sleep(POLL_SECONDS)

    def interrupt(self) -> None:
        """Do nothing: a log is read as it is at the moment, within seconds."""

    def request_removal(self, container_id: str) -> None:
        """Remove a service; its container is killed a moment later."""
        request_removal(self._client, container_id)

    def remove_and_wait(self, container_id: str) -> None:
        """Remove a service and wait until its node has removed the container, or for some time at most."""
        if not remove_service(self._client, container_id):
            log.warning("service %s is removed, but its node does not report the end of it", container_id[:12])

    def error_from_exit(
        self, request: ContainerRequest, state: ContainerState, last_lines: Sequence[str], unreachable_seconds: float
    ) -> PipelineError | None:
        """Return the error that the end of a service's container stands for."""
        failure = state.failure
        if not failure:
            return error_from_exit(request.task, state, request.memory, last_lines, unreachable_seconds)
        # both of the first may be so on one node only, or while a registry is unreachable: another attempt may succeed
        if failure.startswith("No such image"):
            return ContainerError(
                f"image {request.image} is not on node {state.node} and cannot be pulled there: put the model images in"
                " a registry that all nodes reach and set NUMERAI_IMAGE_REGISTRY, or load them on every node"
            )
        if "bind source path does not exist" in failure:
            return ContainerError(
                f"{request.task}: node {state.node} does not have the data volume ({failure}): mount it at the same"
                " path on every node, or keep the models off this one with NUMERAI_SWARM_CONSTRAINTS"
            )
        return ContainerError(f"{request.task}: {failure} (exit code {state.exit_code}, node {state.node})")

    def last_change(self, container_id: str) -> datetime | None:
        """Return when a service ended or, if it still runs, was created; None if it does not exist."""
        return service_last_change(self._client, container_id)

    def written_bytes(self, found: FoundContainer) -> int:  # noqa: ARG002 - a swarm does not report it
        """Return 0: a swarm reports no sizes."""
        return 0

    def _warn_about_swarm_limits(self, client: APIClient) -> None:
        version = tuple(int(part) for part in client.api_version.split("."))
        has_option = version >= _FIRST_API_WITH_NO_NEW_PRIVILEGES
        lacking = "" if has_option else "; this engine's swarm does not support `no-new-privileges`"
        log.warning(
            "in a swarm a container can use swap beyond its memory limit, and can reach other models' containers on"
            " network %s (see docs/deployment/swarm.md)%s",
            self._settings.swarm_network,
            lacking,
        )

    def _container_spec(self, client: APIClient, request: ContainerRequest) -> types.ContainerSpec:
        volume = find_data_volume(self._settings, client)
        shared = partial(types.Mount, source=None, type="tmpfs", tmpfs_mode=0o1777)
        mounts = [
            *(mount_on_host(mount, volume) for mount in request.mounts),
            shared("/tmp"),  # noqa: S108 - a path of the container
            shared("/dev/shm", tmpfs_size=2**30),  # noqa: S108 - a path of the container
        ]
        return types.ContainerSpec(
            request.image,
            env=dict(request.environment),
            user=request.user,
            mounts=mounts,
            stop_grace_period=0,
            read_only=True,
            init=True,
            cap_drop=["ALL"],
            privileges=_NO_NEW_PRIVILEGES,
            healthcheck=types.Healthcheck(test=["NONE"]),
            dns_config=types.DNSConfig(nameservers=[_UNREACHABLE_RESOLVER]),
        )


def _require_gpus(client: APIClient, request: ContainerRequest) -> None:
    """Check that a node has the GPUs: without one, the service would wait until its time limit."""
    if not request.gpus:
        return
    place = f"{request.task}: models.yaml sets `gpus: {request.gpus}`"
    if request.gpus == "all":
        msg = f"{place}, and a swarm reserves a number of GPUs only: set the number that one node has"
        raise BadInputError(msg)
    available = largest_number_of_gpus(client)
    if available < request.gpus:
        msg = (
            f"{place}, but the nodes of the swarm have at most {available}: list the GPUs of a node as"
            f" `node-generic-resources` {GPU_RESOURCE}=... in its daemon.json (docs/deployment/swarm.md), or change"
            f" `gpus` of task {request.task} in models.yaml"
        )
        raise BadInputError(msg)


def _require_network(client: APIClient, name: str) -> None:
    network = next((found for found in client.networks(names=[name]) if found["Name"] == name), None)
    if network is None:
        log.info("creating the internal network %s for the models", name)
        try:
            client.create_network(name, driver="overlay", internal=True, scope="swarm")
        except docker.errors.APIError as error:
            if is_connection_error(error):
                raise
            if error.status_code != 409:  # another task created it
                msg = f"NUMERAI_SWARM_NETWORK: network {name} cannot be created: {error.explanation}"
                raise BadInputError(msg) from None
    elif not network["Internal"]:
        log.warning("NUMERAI_SWARM_NETWORK: %s is not internal: models can reach other networks through it", name)


def _resources(client: APIClient, request: ContainerRequest) -> types.Resources:
    """Reserve as much as the limits, so that nodes are not overbooked; at most the size of the largest node."""
    cores, memory = largest_node(client)
    limits = (min(request.cores, cores) * 10**9, request.memory * 2**20)
    resources = types.Resources(
        cpu_limit=limits[0],
        mem_limit=limits[1],
        cpu_reservation=limits[0],
        mem_reservation=min(limits[1], memory * 2**20),
        generic_resources={GPU_RESOURCE: request.gpus} if request.gpus else None,
    )
    resources["Limits"]["Pids"] = 4096
    return resources


def _container_lines(frames: Iterable[bytes]) -> Iterator[bytes]:
    for frame in frames:
        if frame[:1].isdigit():  # a timestamp; other frames are errors of the manager
            yield frame
        else:
            _warn_about_gaps(frame.decode(errors="replace").strip())


def _warn_about_gaps(reason: str) -> None:
    log.warning("the log may have gaps: %s", reason)
