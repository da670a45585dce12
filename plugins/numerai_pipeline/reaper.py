"""Removes containers that work, or wait to be taken over, for nobody.

A container is ours by its labels: the installation's id, never a name. It is wanted as long as its run goes on and its
task has not come to an end, for then a try of the task follows it or will take it over. Airflow is asked for both.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numerai_pipeline.leases import RunRef

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from docker import APIClient

    from numerai_pipeline.settings import Settings

log = logging.getLogger(__name__)

_ACTIVE_RUNS = ["queued", "running"]
_OVER = frozenset({"success", "failed", "skipped", "upstream_failed", "removed"})


@dataclass(frozen=True)
class ContainerOwner:
    """The task that a container was started for, by its labels."""

    lease: RunRef
    task: str

    @classmethod
    def of(cls, labels: Mapping[str, str]) -> ContainerOwner:
        """Read the labels of a container."""
        lease = RunRef(labels.get("numerai.dag", ""), labels.get("numerai.run", ""))
        return cls(lease, labels.get("numerai.task", ""))


def run_goes_on(ti: RuntimeTaskInstanceProtocol, lease: RunRef) -> bool:
    """Ask Airflow whether a run is not over yet."""
    return ti.get_dr_count(dag_id=lease.dag, run_ids=[lease.run], states=_ACTIVE_RUNS) > 0


def asking_airflow(ti: RuntimeTaskInstanceProtocol) -> Callable[[ContainerOwner], bool]:
    """Build what tells whether a container is wanted, from the task that wants to know."""

    def is_wanted(owner: ContainerOwner) -> bool:
        lease = owner.lease
        if not run_goes_on(ti, lease):
            return False
        states = ti.get_task_states(dag_id=lease.dag, task_ids=[owner.task], run_ids=[lease.run])
        return str(states.get(lease.run, {}).get(owner.task)) not in _OVER

    return is_wanted


def unwanted_containers(
    client: APIClient, installation: str, is_wanted: Callable[[ContainerOwner], bool]
) -> list[dict[str, Any]]:
    """List this installation's containers that nobody waits for."""
    return _unwanted(client.containers(all=True, filters={"label": f"numerai={installation}"}), is_wanted)


def unwanted_services(
    client: APIClient, installation: str, is_wanted: Callable[[ContainerOwner], bool]
) -> list[dict[str, Any]]:
    """List this installation's services of the swarm that nobody waits for."""
    from numerai_pipeline.swarm_services import find_services

    return _unwanted(find_services(client, [f"numerai={installation}"]), is_wanted)


def _unwanted(ours: list[dict[str, Any]], is_wanted: Callable[[ContainerOwner], bool]) -> list[dict[str, Any]]:
    answers: dict[ContainerOwner, bool] = {}
    found = []
    for container in ours:
        owner = ContainerOwner.of(container["Labels"])
        if owner not in answers:
            answers[owner] = is_wanted(owner)
        if not answers[owner]:
            found.append(container)
    return found


def reap(settings: Settings, ti: RuntimeTaskInstanceProtocol) -> int:
    """Remove this installation's containers, and services of a swarm, that nobody waits for; return how many.

    Where the engine does not answer, this only says so: who needs it finds that out for himself.
    """
    import docker
    import requests
    from docker.errors import DockerException

    from numerai_pipeline.data_volume import installation_id
    from numerai_pipeline.docker_engine import remove_container
    from numerai_pipeline.swarm_services import order_removal

    if not (settings.data_dir / ".installation").exists():
        return 0  # a new installation, which never had a container
    try:
        client = docker.from_env()
    except (DockerException, requests.RequestException) as error:
        log.warning("the Docker engine does not answer, so nobody looks for containers left behind: %s", error)
        return 0
    try:
        installation, is_wanted = installation_id(settings.data_dir), asking_airflow(ti)
        unwanted = unwanted_containers(client.api, installation, is_wanted)
        for container in unwanted:
            _say(container, "container")
            remove_container(client.api, container["Id"])
        if settings.engine == "swarm":
            services = unwanted_services(client.api, installation, is_wanted)
            for service in services:
                _say(service, "service")
                order_removal(client.api, service["Id"])
            unwanted += services
    except (DockerException, requests.RequestException) as error:
        log.warning("the search for containers left behind was broken off: %s", error)
        return 0
    finally:
        client.close()
    return len(unwanted)


def _say(container: dict[str, Any], noun: str) -> None:
    owner = ContainerOwner.of(container["Labels"])
    log.info(
        "removing %s %s (%s), for which nobody waits any more: task %s of run %s",
        noun,
        container["Id"][:12],
        container["Status"],
        owner.task,
        owner.lease.run,
    )
