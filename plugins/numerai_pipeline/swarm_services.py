"""What a Docker Swarm says of a service and its one task, in the words an engine has for a container.

A service stands for one container on whichever node has room for it. The swarm's manager is asked for all of it; only
whether a container ran out of memory is known to its node alone.
"""

from __future__ import annotations

import struct
import time
from datetime import datetime
from typing import TYPE_CHECKING, Any

import docker.errors
import requests
import urllib3

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient

REMOVAL_SECONDS = 20.0
LOG_SECONDS = 10.0
# before each piece of a log: one byte that says which stream it is of, three of nothing, four for its length
_PIECE = struct.Struct(">BxxxI")
_ENDED = frozenset({"complete", "failed", "rejected", "shutdown", "orphaned", "remove"})
_WENT_THROUGH = ("task: non-zero exit", "")


class NodeSilentError(Exception):
    """The node of a service does not hand out its log."""


def find_services(client: APIClient, labels: Sequence[str]) -> list[dict[str, Any]]:
    """List the services with all of these labels, each with ``Id``, ``Labels``, ``Status`` and ``Mounts``.

    Parameters
    ----------
    client : APIClient
        A connection to a manager.
    labels : sequence of str
        ``name=value`` each.
    """
    services = _untyped(client).services(filters={"label": list(labels)})
    # of a task, its service's labels tell; asked for all at once, as a service may be gone by the time of a second look
    tasks = _untyped(client).tasks(filters={"label": list(labels)})

    def status(service_id: str) -> str:
        newest = _newest([task for task in tasks if task["ServiceID"] == service_id])
        return "new" if newest is None else str(newest["Status"]["State"])

    return [
        {
            "Id": service["ID"],
            "Labels": service["Spec"]["Labels"],
            "Status": status(service["ID"]),
            "Mounts": service["Spec"]["TaskTemplate"]["ContainerSpec"].get("Mounts", []),
        }
        for service in services
    ]


def has_ended(status: str) -> bool:
    """Whether a service with this ``Status`` does nothing any more."""
    return status in _ENDED


def service_state(client: APIClient, service_id: str) -> dict[str, Any]:
    """Tell where a service stands.

    Returns
    -------
    dict
        As for a container: ``Status`` (``waiting``, ``running`` or ``exited``), ``ExitCode``, and ``OOMKilled``, None
        where only another node knows. ``Said`` is what the swarm says about a wait; ``Failure`` is what it says where
        it was the swarm that failed and not the container, otherwise empty; ``Node`` is the name of its node.

    Raises
    ------
    docker.errors.NotFound
        When there is no such service.
    """
    task = _newest_task(client, service_id)
    if task is None:
        return _state("waiting")
    seen = task["Status"]
    state, said = seen["State"], seen.get("Err") or ""
    container = seen.get("ContainerStatus") or {}
    code = container.get("ExitCode", 0)
    node, is_lost = _node(client, task)
    if state not in _ENDED:
        if is_lost and task["DesiredState"] != "running":
            return _state("exited", node=node, failure=f"the swarm has lost its node {node}")
        return _state("running" if state == "running" else "waiting", said=said, node=node)
    if state == "complete":
        return _state("exited", node=node)
    if state == "failed" and code and said.startswith(_WENT_THROUGH):
        return _state("exited", code, _ran_out_of_memory(client, task), node=node)
    failure = said or f"the swarm stopped it ({state}): its node {node} was drained, or somebody scaled the service"
    return _state("exited", code, node=node, failure=failure)


def read_log(client: APIClient, service_id: str, since: int) -> list[bytes]:
    """Read what there is of a service's log, in pieces that each begin with a time stamp, or say what went wrong.

    The library's own way to read it waits for ever where a node is silent, and with it the manager.

    Parameters
    ----------
    client : APIClient
        A connection to a manager.
    service_id : str
        The service.
    since : int
        Seconds since 1970 from which on to read.

    Raises
    ------
    NodeSilentError
        When nothing comes for :data:`LOG_SECONDS`.
    docker.errors.APIError
        When the manager refuses.
    """
    address = f"{client.base_url}/v{client.api_version}/services/{service_id}/logs"
    wanted = {"stdout": 1, "stderr": 1, "timestamps": 1, "since": since}
    try:
        response = client.get(address, params=wanted, timeout=LOG_SECONDS)
        response.raise_for_status()
    except requests.HTTPError as error:
        docker.errors.create_api_error_from_http_exception(error)
    except requests.RequestException as error:
        if isinstance(error, requests.ReadTimeout) or isinstance(
            error.args[0] if error.args else None, urllib3.exceptions.ReadTimeoutError
        ):
            msg = f"its node handed out nothing for {LOG_SECONDS:g} s"
            raise NodeSilentError(msg) from error
        raise
    content, pieces, place = response.content, [], 0
    while place + _PIECE.size <= len(content):
        _, length = _PIECE.unpack_from(content, place)
        place += _PIECE.size + length
        pieces.append(content[place - length : place])
    return pieces


def service_since(client: APIClient, service_id: str) -> datetime | None:
    """When a service ended; for one that works or waits, when it was made; None for one that is gone."""
    try:
        task = _newest_task(client, service_id)
        moment = _untyped(client).inspect_service(service_id)["CreatedAt"]
    except docker.errors.NotFound:
        return None
    if task is not None and has_ended(task["Status"]["State"]):
        moment = task["Status"]["Timestamp"]
    return datetime.fromisoformat(moment)


def order_removal(client: APIClient, service_id: str) -> None:
    """Have a service removed; its container is killed a moment later. One that is gone already is fine."""
    try:
        _untyped(client).remove_service(service_id)
    except docker.errors.NotFound:
        return


def remove_service(client: APIClient, service_id: str, patience: float = REMOVAL_SECONDS) -> bool:
    """Remove a service and wait until its container is gone; False when that takes too long, as on a lost node."""
    order_removal(client, service_id)
    deadline = time.monotonic() + patience
    # the swarm keeps a task until its node has removed the container; a removed service cannot be asked for its tasks
    while any(task["ServiceID"] == service_id for task in _untyped(client).tasks()):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True


def biggest_node(client: APIClient) -> tuple[int, int]:
    """Cores and MiB of the node that has most of each; what is more than that, no node could ever reserve."""
    ready = [node for node in client.nodes() if node["Status"]["State"] == "ready"]
    sizes = [node["Description"]["Resources"] for node in ready if node["Spec"]["Availability"] == "active"]
    cores = max((size.get("NanoCPUs", 0) // 10**9 for size in sizes), default=0)
    memory = max((size.get("MemoryBytes", 0) // 2**20 for size in sizes), default=0)
    return max(cores, 1), memory


def _newest_task(client: APIClient, service_id: str) -> dict[str, Any] | None:
    return _newest(_untyped(client).tasks(filters={"service": service_id}))


def _newest(tasks: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    return max(tasks, key=lambda task: str(task["CreatedAt"]), default=None)


def _untyped(client: APIClient) -> Any:
    """Give the same: the library's types know nothing of services."""
    return client


def _node(client: APIClient, task: dict[str, Any]) -> tuple[str, bool]:
    """Name of a task's node, and whether the swarm has lost it; no name before there is one."""
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


def _state(
    status: str, code: int = 0, oom: bool | None = False, *, said: str = "", failure: str = "", node: str = ""
) -> dict[str, Any]:
    return {
        "Status": status,
        "ExitCode": code,
        "OOMKilled": oom,
        "Said": said,
        "Failure": failure,
        "Node": node,
    }
