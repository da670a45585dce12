"""The shared data volume: where it is for this process, and where it is for the Docker host.

Model containers are started by the Docker engine beside Airflow, so what they mount is named by its path on the
Docker *host*. Where Airflow runs on the host itself the two paths are one; where Airflow runs in a container, its own
mounts tell which host folder lies behind the data directory.
"""

from __future__ import annotations

import os
import re
import uuid
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docker import APIClient

    from numerai_pipeline.settings import Settings

DEFAULT_CONTAINER_UID = 10001
_CONTAINER_ID = re.compile(r"/containers/([0-9a-f]{64})/")


@dataclass(frozen=True)
class DataVolume:
    """The data volume seen from both sides.

    Attributes
    ----------
    inside : Path
        Its path for this process.
    on_host : PurePosixPath
        Its path for the Docker host.
    """

    inside: Path
    on_host: PurePosixPath

    def host_path(self, path: Path) -> PurePosixPath:
        """Translate a path on the volume, as this process sees it, to the Docker host's.

        Raises
        ------
        ValueError
            When the path is not on the volume.
        """
        return self.on_host / path.relative_to(self.inside)


def find_data_volume(settings: Settings, client: APIClient) -> DataVolume:
    """Find out where the data directory is on the Docker host.

    Raises
    ------
    BadInputError
        When Airflow runs in a container in which nothing is mounted at the data directory.
    """
    inside = settings.data_dir
    if settings.data_dir_on_host is not None:
        return DataVolume(inside, PurePosixPath(settings.data_dir_on_host))
    container_id = own_container_id()
    if container_id is None:
        return DataVolume(inside, PurePosixPath(inside))
    return DataVolume(inside, host_folder(inside, _own_mounts(client, container_id)))


def own_container_id(mount_info: Path = Path("/proc/self/mountinfo")) -> str | None:
    """Id of the container this process runs in; None on a host.

    Docker mounts a container's ``hostname`` and ``resolv.conf`` from a folder named by its full id, whatever the
    host name and the version of cgroups.
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
            f"Airflow runs in container {container_id[:12]}, which this Docker engine does not know: set"
            " NUMERAI_DATA_DIR_ON_HOST to the path of the data directory on the engine's host"
        )
        raise BadInputError(msg) from None
    return mounts


def host_folder(inside: Path, mounts: Sequence[dict[str, Any]]) -> PurePosixPath:
    """Host folder behind a path of a container with these mounts, each as ``docker inspect`` shows it.

    Raises
    ------
    BadInputError
        When none of them holds the path.
    """
    holding = [mount for mount in mounts if inside.is_relative_to(mount["Destination"])]
    if not holding:
        seen = ", ".join(sorted(mount["Destination"] for mount in mounts)) or "nothing"
        msg = (
            f"the data directory {inside} is not on a volume of Airflow's container (mounted there: {seen}), so model"
            " containers cannot share it: mount a volume there, or set NUMERAI_DATA_DIR and NUMERAI_DATA_DIR_ON_HOST"
        )
        raise BadInputError(msg)
    nearest = max(holding, key=lambda mount: len(mount["Destination"]))
    return PurePosixPath(nearest["Source"]) / inside.relative_to(nearest["Destination"])


def installation_id(data_dir: Path) -> str:
    """Id of the installation that the data volume belongs to; made on first use and kept in ``.installation``.

    It labels our containers, so that nobody ever removes those of another installation on the same engine.
    """
    file = data_dir / ".installation"
    if not file.exists():
        with atomic_path(file) as temporary:
            temporary.write_text(f"{uuid.uuid4().hex[:12]}\n", encoding="ascii")
            try:
                # A link, unlike a rename, fails when somebody else was first: all keep the same id.
                os.link(temporary, file)
            except FileExistsError:
                temporary.write_bytes(file.read_bytes())
    return file.read_text(encoding="ascii").strip()


def container_user(settings: Settings) -> str:
    """User id and group id, as ``uid:gid``, that model containers run as: neither is ever root's.

    Airflow's own, so that both may write the volume; where Airflow itself is root, an unprivileged id. A group that is
    not known, or root's, as in Airflow's public images, becomes that of the user's number.
    """
    uid, gid = os.getuid(), os.getgid()
    if settings.container_user is not None:
        own, _, group = settings.container_user.partition(":")
        uid, gid = int(own), int(group or 0)
    elif uid == 0:
        uid = gid = DEFAULT_CONTAINER_UID
    return f"{uid}:{gid or uid}"


def give_to(user: str, directory: Path) -> None:
    """Make ``directory`` and make it writable for the model containers' user, where this process may do so."""
    directory.mkdir(parents=True, exist_ok=True)
    if os.getuid() == 0:
        uid, _, gid = user.partition(":")
        os.chown(directory, int(uid), int(gid or uid))
