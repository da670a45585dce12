"""The shared data volume: its path for this process, and its path for the Docker host.

The Docker engine beside Airflow starts the model containers, so their mounts are paths on the Docker *host*. If Airflow
runs on the host, the two paths are equal; if Airflow runs in a container, the mounts of that container show the host
folder of the data directory.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient

    from numerai_pipeline.core.settings import Settings

DEFAULT_CONTAINER_UID = 10001
_CONTAINER_ID = re.compile(r"/containers/([0-9a-f]{64})/")


@dataclass(frozen=True)
class DataVolume:
    """The data volume.

    Attributes
    ----------
    local : Path
        Its path for this process.
    on_host : PurePosixPath
        Its path for the Docker host.
    """

    local: Path
    on_host: PurePosixPath

    def host_path(self, path: Path) -> PurePosixPath:
        """Translate a path of this process on the volume to the path of the Docker host.

        Raises
        ------
        ValueError
            When the path is not on the volume.
        """
        return self.on_host / path.relative_to(self.local)


def find_data_volume(settings: Settings, client: APIClient) -> DataVolume:
    """Determine the path of the data directory on the Docker host.

    Raises
    ------
    BadInputError
        When Airflow runs in a container without a mount at the data directory.
    """
    local = settings.data_dir
    if settings.data_dir_on_host is not None:
        return DataVolume(local, PurePosixPath(settings.data_dir_on_host))
    container_id = own_container_id()
    if container_id is None:
        return DataVolume(local, PurePosixPath(local))
    return DataVolume(local, host_folder(local, _own_mounts(client, container_id)))


def own_container_id(mount_info: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Return the id of the container that this process runs in; None on a host.

    Docker mounts a container's ``hostname`` and ``resolv.conf`` from a folder named by its full id, independent of the
    host name and of the version of cgroups.
    """
    try:
        found = _CONTAINER_ID.search(mount_info.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return None
    return found.group(1) if found else None


def _own_mounts(client: APIClient, container_id: str) -> Sequence[dict[str, Any]]:
    from docker.errors import NotFound

    try:
        mounts: Sequence[dict[str, Any]] = client.inspect_container(container_id)["Mounts"]
    except NotFound:
        msg = (
            f"Airflow runs in container {container_id[:12]}, which is not on this Docker engine: set"
            " NUMERAI_DATA_DIR_ON_HOST to the path of the data directory on the engine's host"
        )
        raise BadInputError(msg) from None
    return mounts


def host_folder(local: Path, mounts: Sequence[dict[str, Any]]) -> PurePosixPath:
    """Find the host folder of a path in a container with these mounts, each as ``docker inspect`` shows it.

    Raises
    ------
    BadInputError
        When none of them holds the path.
    """
    holding = [mount for mount in mounts if local.is_relative_to(mount["Destination"])]
    if not holding:
        mounted = ", ".join(sorted(mount["Destination"] for mount in mounts)) or "nothing"
        msg = (
            f"the data directory {local} is not on a volume of Airflow's container (mounted there: {mounted}), so model"
            " containers cannot share it: mount a volume there, or set NUMERAI_DATA_DIR and NUMERAI_DATA_DIR_ON_HOST"
        )
        raise BadInputError(msg)
    nearest = max(holding, key=lambda mount: len(mount["Destination"]))
    return PurePosixPath(nearest["Source"]) / local.relative_to(nearest["Destination"])


def installation_id(data_dir: Path) -> str:
    """Return the id of the data volume, from the file ``.installation``, which the first use creates.

    It labels the volume's containers. Deployments that share a volume have another label (``dag/deployment.py``).
    """
    file = data_dir / ".installation"
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="ascii")
            try:
                # a link, unlike a rename, fails when another process was first: all processes get the same id
                os.link(temporary, file)
            except FileExistsError:
                temporary.write_bytes(file.read_bytes())
    return file.read_text(encoding="ascii").strip()


def container_user(settings: Settings) -> str:
    """Return the user and group id, as ``uid:gid``, of the model containers: never root.

    They are Airflow's ids, so that both may write the volume; if Airflow runs as root, an unprivileged id. An unknown
    group, or root's as in Airflow's public images, is replaced by the user id.
    """
    uid, gid = os.getuid(), os.getgid()
    if settings.container_user is not None:
        own, _, group = settings.container_user.partition(":")
        uid, gid = int(own), int(group or 0)
    elif uid == 0:
        uid = gid = DEFAULT_CONTAINER_UID
    return f"{uid}:{gid or uid}"


def chown_for(user: str, directory: Path) -> None:
    """Create ``directory`` and, if this process is root, give it to the user of the model containers."""
    directory.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        uid, _, gid = user.partition(":")
        os.chown(directory, int(uid), int(gid or uid))
