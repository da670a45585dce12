"""One model's container as a service of a Docker Swarm: on whichever node has room for it.

What makes a container safe is the same as on one engine (``model_container.py``), and so is what the task says about
it. A service has one task that is never started again: Airflow tries again, and it alone knows when that helps.

Traps of swarm services that are dealt with here: the provider's operator never ends for a task that waits for room,
asks in a circle without a pause, and loses the log's end. A log that is followed never ends either, since a service
could start another task, and is waited for without end where its node is silent. A removed service still works for a
moment. A missing image is no error but a task that was rejected. A node kills what it finds unhealthy.
``docs/swarm.md`` says what a swarm cannot do.
"""

from __future__ import annotations

import time
import uuid
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

import docker.errors
from airflow.providers.docker.operators.docker_swarm import DockerSwarmOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker import types

from numerai_pipeline.docker_engine import is_silence, reaching
from numerai_pipeline.model_container import TOLD_APART_BY, ContainerRequest, ModelContainer
from numerai_pipeline.settings import load_settings
from numerai_pipeline.swarm_services import (
    NodeSilentError,
    biggest_node,
    find_services,
    order_removal,
    read_log,
    remove_service,
    service_state,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numerai_pipeline.container_log import ContainerLog

SECONDS_BETWEEN_LOOKS = 1.0
# An engine resolves names for containers of an internal network, and so lets questions out: unless they are told to
# ask an address that they themselves cannot reach. This one is nobody's (RFC 5737).
_NO_RESOLVER = "192.0.2.1"
# the library has no word for it yet
_NO_NEW_PRIVILEGES: Any = {"NoNewPrivileges": True}
_KNOWS_NO_NEW_PRIVILEGES = (1, 44)


class ModelService(ModelContainer, DockerSwarmOperator):
    """Runs one container as a service to its end, or takes over the one that an earlier try of the same task left."""

    external_id_key = "model_service"
    log_key = "model_service_log"
    noun = "service"

    def __init__(self, *, request: ContainerRequest, **kwargs: Any) -> None:
        settings = load_settings()
        super().__init__(
            request=request,
            mode=types.ServiceMode("replicated", replicas=1),
            networks=[settings.swarm_network],
            service_prefix="numerai",
            **kwargs,
        )
        self._told = self._waits_for = ""

    def _get_ready(self) -> None:
        """Make sure that this is a manager and that there is a network that leads nowhere."""
        with reaching():
            client = self.cli
        swarm = client.info()["Swarm"]
        if swarm["LocalNodeState"] == "inactive" or (
            swarm["LocalNodeState"] == "active" and not swarm["ControlAvailable"]
        ):
            msg = (
                f"NUMERAI_ENGINE=swarm needs a manager of a swarm, and the engine at {self.docker_url} is none (state:"
                f" {swarm['LocalNodeState']}): run `docker swarm init` there, or set DOCKER_HOST to a manager"
            )
            raise AirflowFailException(msg)
        self._need_network(load_settings().swarm_network)

    def _need_network(self, name: str) -> None:
        network = next((found for found in self.cli.networks(names=[name]) if found["Name"] == name), None)
        if network is None:
            self.log.info("making network %s for the models: it leads nowhere", name)
            try:
                self.cli.create_network(name, driver="overlay", internal=True, scope="swarm")
            except docker.errors.APIError as error:
                if is_silence(error):
                    raise
                if error.status_code != 409:  # another task was first
                    msg = f"NUMERAI_SWARM_NETWORK: network {name} cannot be made: {error.explanation}"
                    raise AirflowFailException(msg) from None
        elif not network["Internal"]:
            self.log.warning("NUMERAI_SWARM_NETWORK: %s is not internal: models can reach what is beyond it", name)

    def _earlier_containers(self) -> list[dict[str, Any]]:
        return find_services(self.cli, [f"{name}={self.request.labels[name]}" for name in TOLD_APART_BY])

    def _start(self) -> str:
        self._say_what_swarm_cannot()
        self._prepare_for_its_end()
        client: Any = self.cli  # whose types know nothing of services
        service = client.create_service(
            types.TaskTemplate(
                self._container_spec(),
                resources=self._resources(),
                restart_policy=types.RestartPolicy("none"),
                networks=self.networks,
                placement=types.Placement(constraints=list(load_settings().swarm_constraints)),
            ),
            # for people only: what belongs to whom, the labels say
            name=f"{self.service_prefix}-{self.task_name[:40]}-{uuid.uuid4().hex[:8]}",
            labels=self.labels,
            mode=self.mode,
        )
        # known before anybody can end this task by an exception: it is at work already
        self.container_id = str(service["ID"])
        return self.container_id

    def _say_what_swarm_cannot(self) -> None:
        version = tuple(int(part) for part in self.cli.api_version.split("."))
        lacking = "" if version >= _KNOWS_NO_NEW_PRIVILEGES else "; this engine's swarm knows no `no-new-privileges`"
        self.log.warning(
            "in a swarm a container can use swap beyond its memory limit, and sees other models' containers on network"
            " %s (see docs/swarm.md)%s",
            load_settings().swarm_network,
            lacking,
        )

    def _container_spec(self) -> types.ContainerSpec:
        shared = partial(types.Mount, source=None, type="tmpfs", tmpfs_mode=0o1777)
        return types.ContainerSpec(
            self.image,
            env=self.environment,
            user=self.request.user,
            mounts=[*self._mounts(), shared("/tmp"), shared("/dev/shm", tmpfs_size=2**30)],  # noqa: S108 - its own
            stop_grace_period=0,
            read_only=True,
            init=True,
            cap_drop=["ALL"],
            privileges=_NO_NEW_PRIVILEGES,
            healthcheck=types.Healthcheck(test=["NONE"]),
            dns_config=types.DNSConfig(nameservers=[_NO_RESOLVER]),
        )

    def _resources(self) -> types.Resources:
        """Reserve what it may use, so that no node promises more than it has; never more than the biggest node has."""
        cores, memory = biggest_node(self.cli)
        limits = (min(self.request.cores, cores) * 10**9, self.request.memory * 2**20)
        resources = types.Resources(
            cpu_limit=limits[0],
            mem_limit=limits[1],
            cpu_reservation=limits[0],
            mem_reservation=min(limits[1], memory * 2**20),
        )
        resources["Limits"]["Pids"] = 4096
        return resources

    def _look(self, container_id: str) -> dict[str, Any]:
        state = service_state(self.cli, container_id)
        self._waits_for = state["Said"] if state["Status"] == "waiting" else ""
        where = self._waits_for or state["Node"]
        if where and where != self._told:
            says = "service %s waits for a node: %s" if self._waits_for else "service %s is on node %s"
            self.log.info(says, container_id[:12], where)
            self._told = where
        return state

    def _status(self, container_id: str) -> str:
        state = self._look(container_id)
        if state["Status"] in ("waiting", "running"):
            return "running"
        return "failed" if state["Failure"] or state["ExitCode"] else "succeeded"

    def _pass_on(self, container_id: str, log: ContainerLog, *, to_its_end: bool) -> None:
        since = int(datetime.fromisoformat(log.read_until).timestamp()) if log.read_until else 0
        try:
            pieces = read_log(self.cli, container_id, since)
        except NodeSilentError as error:
            self.log.warning("the log may have gaps: %s", error)
            pieces = []
        log.follow(self._of_the_container(pieces), to_its_end=False)
        if to_its_end:
            time.sleep(SECONDS_BETWEEN_LOOKS)

    def _of_the_container(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            if piece[:1].isdigit():  # a time stamp
                yield piece
            else:
                self.log.warning("the log may have gaps: %s", piece.decode(errors="replace").strip())

    def _verdict(self, state: dict[str, Any], log: ContainerLog) -> AirflowException | None:
        failure = state["Failure"]
        if not failure:
            return super()._verdict(state, log)
        # both may be so on one node only, and a registry that does not answer looks like the first: so tried again
        if failure.startswith("No such image"):
            return AirflowException(
                f"image {self.image} is not on node {state['Node']} and cannot be pulled there: put the model images in"
                " a registry that all nodes reach and set NUMERAI_IMAGE_REGISTRY, or load them on every node"
            )
        if "bind source path does not exist" in failure:
            return AirflowException(
                f"{self.task_name}: node {state['Node']} does not have the data volume ({failure}): mount it at the"
                " same path on every node, or keep the models off this one with NUMERAI_SWARM_CONSTRAINTS"
            )
        return AirflowException(f"{self.task_name}: {failure} (exit code {state['ExitCode']}, node {state['Node']})")

    def _raise_if_stopped(self) -> None:
        try:
            super()._raise_if_stopped()
        except AirflowException as error:
            if not self._waits_for:
                raise
            msg = f"{error}. It never started: no node of the swarm had room for it ({self._waits_for})"
            raise AirflowException(msg) from None

    def _remove(self, container_id: str) -> None:
        order_removal(self.cli, container_id)

    def _remove_wholly(self, container_id: str) -> None:
        if not remove_service(self.cli, container_id):
            self.log.warning("service %s is removed, but its node does not say that it ended", container_id[:12])
