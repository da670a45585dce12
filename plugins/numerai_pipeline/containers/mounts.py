"""The bind mounts of a container: its workspace as ``/data`` and, below it, each input read-only."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from docker.types import Mount

from numerai_pipeline.storage.layout import CONTAINER_RUN, RunLayout

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numerai_pipeline.containers.data_volume import DataVolume
    from numerai_pipeline.containers.workspace import Workspace


def workspace_mount(layout: RunLayout, task: str) -> Mount:
    """Return the mount of a task's workspace, the only writable mount of its container."""
    return Mount(str(CONTAINER_RUN.directory), str(layout.workspace(task)), type="bind")


def workspace_mounts(workspace: Workspace) -> list[Mount]:
    """Return all mounts of a container.

    Files that it must not read are ``/dev/null`` there. Each source is a path of this process on the data volume.
    """
    sources = {path: str(path) for path in workspace.readable()}
    sources |= dict.fromkeys(workspace.hidden, os.devnull)

    def target(path: Path) -> str:
        return str(CONTAINER_RUN.directory / path.relative_to(workspace.run.directory))

    inputs = (Mount(target(path), source, "bind", read_only=True) for path, source in sources.items())
    return [workspace_mount(workspace.run, workspace.task), *inputs]


def mount_on_host(mount: Mapping[str, object], volume: DataVolume) -> Mount:
    """Translate the source of a mount to the path that the Docker host has for it."""
    source = str(mount["Source"])
    if source != os.devnull:
        source = str(volume.host_path(Path(source)))
    return Mount(str(mount["Target"]), source, "bind", read_only=bool(mount.get("ReadOnly")))
