"""Finds containers whose Airflow run or task is no longer active.

A container belongs to a deployment by its labels, never by a name. It is needed while its run and its task are active,
since an attempt of the task follows it or will reattach to it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from numerai_pipeline.containers.labels import volume_filter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from numerai_pipeline.containers.backend import Backend, FoundContainer

log = logging.getLogger(__name__)


def find_orphans(
    backend: Backend, volume: str, deployment: str, is_active: Callable[[FoundContainer], bool]
) -> list[FoundContainer]:
    """List the containers of a deployment whose task is no longer active.

    Parameters
    ----------
    backend : Backend
        The platform to search.
    volume : str
        Id of the deployment's data volume.
    deployment : str
        Id of the deployment.
    is_active : callable
        Whether the task of a container is active, and may follow it.
    """
    found = backend.find([volume_filter(volume)])
    return [each for each in found if each.labels.is_of_deployment(deployment) and not is_active(each)]


def remove_orphans(
    backends: Iterable[Backend], volume: str, deployment: str, is_active: Callable[[FoundContainer], bool]
) -> int:
    """Remove the containers of a deployment whose task is no longer active; return their number."""
    removed = 0
    for backend in backends:
        for container in find_orphans(backend, volume, deployment, is_active):
            _log_removal(backend, container)
            backend.request_removal(container.id)
            removed += 1
    return removed


def _log_removal(backend: Backend, container: FoundContainer) -> None:
    log.info(
        "removing %s %s (%s): task %s of run %s is no longer active, or follows another one",
        backend.kind,
        container.id[:12],
        container.status,
        container.labels.task,
        container.labels.run,
    )
