"""The bind mounts of a container: its workspace as ``/data`` and, below it, each input read-only."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from docker.types import Mount

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numerai_pipeline.containers.data_volume import DataVolume
    from numerai_pipeline.containers.workspace import Workspace

CONTAINER_DATA = PurePosixPath("/data")
"""The workspace as a model's container sees it."""


def data_mount(directory: Path) -> Mount:
    """Return the mount of a directory of the data volume as ``/data``: the only writable one of a container."""
    return Mount(str(CONTAINER_DATA), str(directory), type="bind")


def workspace_mounts(workspace: Workspace) -> list[Mount]:
    """Return all mounts of a container. Each source is a path of this process on the data volume."""
    inputs = (
        Mount(str(CONTAINER_DATA / name), str(source), "bind", read_only=True)
        for name, source in workspace.inputs.items()
    )
    return [data_mount(workspace.directory), *inputs]


def mount_on_host(mount: Mapping[str, object], volume: DataVolume) -> Mount:
    """Translate the source of a mount to the path that the Docker host has for it."""
    source = str(volume.host_path(Path(str(mount["Source"]))))
    return Mount(str(mount["Target"]), source, "bind", read_only=bool(mount.get("ReadOnly")))
