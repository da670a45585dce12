"""Services of a Docker Swarm, as the containers that they stand for: state, log, size of nodes, and removal.

Each service has one task, and that one container on one of the nodes. All queries go to the swarm's manager; only its
node has the information whether a container ran out of memory.
"""

from __future__ import annotations

import struct
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import docker.errors
import requests
import urllib3

from numerai_pipeline.containers.backend import ContainerState, FoundContainer
from numerai_pipeline.containers.labels import ContainerLabels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient

GPU_RESOURCE = "NVIDIA-GPU"
"""Name of the generic resource by which nodes offer GPUs; a swarm has no device requests."""
REMOVAL_SECONDS = 20.0
LOG_SECONDS = 10.0
# header of each frame of a log: one byte for the stream, three unused, four for the length
_LOG_FRAME = struct.Struct(">BxxxI")
_ENDED = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})
_PLAIN_EXIT = "task: non-zero exit"


class NodeUnreachableError(Exception):
    """The node of a service does not send its log."""


def find_services(client: APIClient, filters: Sequence[str]) -> list[FoundContainer]:
    """List the services with all of these labels.

    Parameters
    ----------
    client : APIClient
        A connection to a manager.
    filters : sequence of str
        ``name=value`` each.
    """
    services = _untyped(client).services(filters={"label": list(filters)})
    # tasks have the labels of their service; queried together, since a service may be gone before a second query
    tasks = _untyped(client).tasks(filters={"label": list(filters)})

    def status(service_id: str) -> str:
        newest = _newest([task for task in tasks if task["ServiceID"] == service_id])
        return "new" if newest is None else str(newest["Status"]["State"])

    return [
        FoundContainer(
            id=service["ID"],
            labels=ContainerLabels.from_dict(service["Spec"]["Labels"]),
            status=status(service["ID"]),
            has_ended=status(service["ID"]) in _ENDED,
        )
        for service in services
    ]


def service_state(client: APIClient, service_id: str) -> ContainerState:
    """Return the state of a service's container.

    Raises
    ------
    docker.errors.NotFound
        When there is no such service.
    """
    task = _newest_task(client, service_id)
    if task is None:
        return ContainerState("waiting")
    status = task["Status"]
    state, message = status["State"], status.get("Err") or ""
    exit_code = (status.get("ContainerStatus") or {}).get("ExitCode", 0)
    node, is_lost = _node(client, task)
    if state not in _ENDED:
        if is_lost and task["DesiredState"] != "running":
            return ContainerState("ended", failure=f"the swarm has lost its node {node}", node=node)
        return ContainerState(
            "running" if state == "running" else "waiting",
            wait_reason="" if state == "running" else message,
            node=node,
        )
    if state == "complete":
        return ContainerState("ended", node=node)
    if state == "failed" and exit_code and (not message or message.startswith(_PLAIN_EXIT)):
        return ContainerState("ended", exit_code, _ran_out_of_memory(client, task), node=node)
    failure = message or (
        f"the swarm stopped it ({state}): its node {node} was drained, or an operator scaled the service"
    )
    return ContainerState("ended", exit_code, failure=failure, node=node)


def read_log(client: APIClient, service_id: str, since: int) -> list[bytes]:
    """Read a service's log as it is now, as frames that each start with a timestamp, or are an error message.

    The library's method for it has no timeout, and blocks while the service's node is unreachable.

    Parameters
    ----------
    client : APIClient
        A connection to a manager.
    service_id : str
        The service.
    since : int
        Start of the part to read, in seconds since 1970.

    Raises
    ------
    NodeUnreachableError
        When the node sends nothing for :data:`LOG_SECONDS`.
    docker.errors.APIError
        When the manager rejects the request.
    """
    address = f"{client.base_url}/v{client.api_version}/services/{service_id}/logs"
    query = {"stdout": 1, "stderr": 1, "timestamps": 1, "since": since}
    try:
        response = client.get(address, params=query, timeout=LOG_SECONDS)
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
    except requests.RequestException as error:
        if isinstance(error, requests.ReadTimeout) or isinstance(
            error.args[0] if error.args else None, urllib3.exceptions.ReadTimeoutError
        ):
            msg = f"its node sent nothing for {LOG_SECONDS:g} s"
            raise NodeUnreachableError(msg) from error
        raise
    content, frames, position = response.content, [], 0
    while position + _LOG_FRAME.size <= len(content):
        _, length = _LOG_FRAME.unpack_from(content, position)
        position += _LOG_FRAME.size + length
        frames.append(content[position - length : position])
    return frames


def service_last_change(client: APIClient, service_id: str) -> datetime | None:
    """Return when a service ended or, if it runs or waits, was created; None if it does not exist."""
    try:
        task = _newest_task(client, service_id)
        moment = _untyped(client).inspect_service(service_id)["CreatedAt"]
    except docker.errors.NotFound:
        return None
    if task is not None and task["Status"]["State"] in _ENDED:
        moment = task["Status"]["Timestamp"]
    return datetime.fromisoformat(moment)


def request_removal(client: APIClient, service_id: str) -> None:
    """Remove a service, if it exists; its container is killed a moment later."""
    try:
        _untyped(client).remove_service(service_id)
    except docker.errors.NotFound:
        return


def remove_service(client: APIClient, service_id: str, timeout: float = REMOVAL_SECONDS) -> bool:
    """Remove a service and wait until its container is gone; return False on a timeout, as for a lost node."""
    request_removal(client, service_id)
    deadline = time.monotonic() + timeout
    # the swarm keeps a task until its node has removed the container; tasks cannot be queried by a removed service
    while any(task["ServiceID"] == service_id for task in _untyped(client).tasks()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def largest_node(client: APIClient) -> tuple[int, int]:
    """Return the most cores and the most MiB of any node: no node can reserve more."""
    sizes = _resources_of_nodes(client)
    cores = max((size.get("NanoCPUs", 0) // 10**9 for size in sizes), default=0)
    memory = max((size.get("MemoryBytes", 0) // 2**20 for size in sizes), default=0)
    return max(cores, 1), memory


def largest_number_of_gpus(client: APIClient) -> int:
    """Return the most GPUs of any node, as its generic resource :data:`GPU_RESOURCE` lists or counts them."""
    numbers = [0]
    for size in _resources_of_nodes(client):
        resources = size.get("GenericResources") or []
        named = [each["NamedResourceSpec"]["Kind"] for each in resources if "NamedResourceSpec" in each]
        counted = [each["DiscreteResourceSpec"] for each in resources if "DiscreteResourceSpec" in each]
        numbers.append(
            named.count(GPU_RESOURCE) + sum(each["Value"] for each in counted if each["Kind"] == GPU_RESOURCE)
        )
    return max(numbers)


def _resources_of_nodes(client: APIClient) -> list[dict[str, Any]]:
    ready = [node for node in client.nodes() if node["Status"]["State"] == "ready"]
    return [node["Description"]["Resources"] for node in ready if node["Spec"]["Availability"] == "active"]


def _newest_task(client: APIClient, service_id: str) -> dict[str, Any] | None:
    return _newest(_untyped(client).tasks(filters={"service": service_id}))


def _newest(tasks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return max(tasks, key=lambda task: str(task["CreatedAt"]), default=None)


def _untyped(client: APIClient) -> Any:
    """Return the client without its type, which has no methods for services."""
    return client


def _node(client: APIClient, task: dict[str, Any]) -> tuple[str, bool]:
    """Return the name of a task's node, empty before it has one, and whether the swarm has lost the node."""
    if not task.get("NodeID"):
        return "", False
    try:
        node = client.inspect_node(task["NodeID"])
    except docker.errors.NotFound:
        return task["NodeID"][:12], True
    return node.get("Description", {}).get("Hostname", task["NodeID"][:12]), node["Status"]["State"] == "down"


def _ran_out_of_memory(client: APIClient, task: dict[str, Any]) -> bool | None:
    if client.info()["Swarm"]["NodeID"] != task["NodeID"]:
        return None
    try:
        state = client.inspect_container(task["Status"]["ContainerStatus"]["ContainerID"])["State"]
    except docker.errors.NotFound:
        return None
    return bool(state["OOMKilled"])
