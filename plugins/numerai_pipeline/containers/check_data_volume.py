"""Checks that model containers and Airflow share the data volume, by starting a container before the first run.

Run ``python -m numerai_pipeline.containers.check_data_volume`` where Airflow's tasks run, as their user and with their
environment. It exits with 0 and a line that names both paths, or with 1 and an error message.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import uuid
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from numerai_pipeline.containers.data_volume import (
    DataVolume,
    chown_for,
    container_user,
    find_data_volume,
    installation_id,
)
from numerai_pipeline.containers.engine_connection import EngineConnection
from numerai_pipeline.core.errors import BadInputError, PipelineError
from numerai_pipeline.core.settings import Settings, load_settings
from numerai_pipeline.models.registry import Registry, load_registry

if TYPE_CHECKING:
    from docker import APIClient

_FOLDER = "/data"
# every image with a shell can do this; the shell writes its errors to the container's log
_READ_AND_WRITE = ["sh", "-c", f"cat {_FOLDER}/question > {_FOLDER}/answer"]
_MEMORY = 64  # MiB
_TIMEOUT_SECONDS = 120


def check_data_volume(settings: Settings, client: APIClient, image: str) -> DataVolume:
    """Check that a container can read a file of this process, and that this process can read a file of the container.

    Parameters
    ----------
    settings : Settings
        The path of the data volume for this process and, if set, for the engine; the user of the containers.
    client : APIClient
        The engine that runs them.
    image : str
        An image on the engine that has a shell.

    Returns
    -------
    DataVolume
        The shared volume.

    Raises
    ------
    BadInputError
        When they do not see the same files, or the container may not write: both paths, and the setting to change.
    """
    volume = find_data_volume(settings, client)
    user = container_user(settings)
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        probe = Path(tempfile.mkdtemp(prefix=".check-", dir=settings.data_dir))
    except OSError as error:
        msg = f"Airflow (user {os.getuid()}) cannot write to its data directory {settings.data_dir}: {error.strerror}"
        raise BadInputError(msg) from None
    try:
        chown_for(user, probe)
        probe.chmod(0o755)
        secret = uuid.uuid4().hex
        (probe / "question").write_text(secret, encoding="ascii")
        (probe / "question").chmod(0o644)
        failure = _run(settings, client, image, user, volume, probe)
        if failure:
            raise BadInputError(_error_message(volume, settings, f"a container of user {user} failed: {failure}"))
        try:
            answer = (probe / "answer").read_text(encoding="ascii")
        except OSError as error:
            answer = f"({error.strerror})"
        if answer != secret:
            reason = f"a file that a container wrote to the latter is not in the former: {answer!r}"
            raise BadInputError(_error_message(volume, settings, reason))
    finally:
        shutil.rmtree(probe, ignore_errors=True)
    return volume


def _run(settings: Settings, client: APIClient, image: str, user: str, volume: DataVolume, probe: Path) -> str:
    """Start the container and wait for its end; return its error output, empty after a success."""
    from docker.errors import APIError, NotFound
    from docker.types import Mount

    from numerai_pipeline.containers.limits import sandbox_host_config

    mount = Mount(_FOLDER, str(volume.host_path(probe)), type="bind")
    container_id = None
    try:
        container_id = client.create_container(
            image=image,
            entrypoint=_READ_AND_WRITE,
            command=[],
            user=user,
            labels={"numerai": installation_id(settings.data_dir), "numerai.task": "check_data_volume"},
            host_config=sandbox_host_config(client, [mount], memory=_MEMORY, cores=1),
        )["Id"]
        client.start(container_id)
        outcome: Any = client.wait(container_id, timeout=_TIMEOUT_SECONDS)
        if outcome["StatusCode"] == 0:
            return ""
        output = client.logs(container_id).decode("utf-8", errors="replace").strip()
    except APIError as error:
        raise BadInputError(_error_message(volume, settings, f"the engine reports: {error.explanation}")) from None
    else:
        return output or f"(nothing; exit code {outcome['StatusCode']})"
    finally:
        if container_id is not None:
            with suppress(NotFound):
                client.remove_container(container_id, force=True, v=True)


def _error_message(volume: DataVolume, settings: Settings, reason: str) -> str:
    setting = settings.data_dir_on_host
    source = "is not set: the path was detected" if setting is None else f"is {setting}"
    return (
        f"model containers cannot use Airflow's data volume. It is {volume.local} for Airflow (NUMERAI_DATA_DIR)"
        f" and should be {volume.on_host} for the Docker engine at {engine_address()} (NUMERAI_DATA_DIR_ON_HOST"
        f" {source}). But {reason}. Set NUMERAI_DATA_DIR_ON_HOST to the path that this directory has on the engine's"
        " host, or mount it there; if only its permissions are wrong, give it to the containers' user"
        " (NUMERAI_CONTAINER_USER)"
    )


def engine_address() -> str:
    """Return the address of the Docker engine."""
    return EngineConnection.from_environment().url


def any_model_image(registry: Registry, settings: Settings, client: APIClient) -> str:
    """Return the name of a model image that is on the engine.

    Raises
    ------
    BadInputError
        When there is none.
    """
    names = [settings.image_registry + name for name in registry.image_names.values()]
    for name in names:
        if client.images(name=name):
            return name
    msg = (
        f"no model image is on the Docker engine at {engine_address()} (searched for {', '.join(names)}): build them"
        " with `make images`, or pull them from their registry (NUMERAI_IMAGE_REGISTRY)"
    )
    raise BadInputError(msg)


def main() -> None:
    """Check this deployment and print the result."""
    from docker.errors import DockerException

    try:
        settings = load_settings()
        registry = load_registry(settings.images_dir or Path(__file__).resolve().parents[3] / "model_images")
        try:
            client = EngineConnection.from_environment().client()
        except DockerException as error:
            msg = f"the Docker engine at {engine_address()} (DOCKER_HOST) is unreachable: {error}"
            raise PipelineError(msg) from None
        image = any_model_image(registry, settings, client)
        volume = check_data_volume(settings, client, image)
    except PipelineError as error:
        sys.exit(f"FAILED: {error}")
    print(
        f"the data volume is shared: {volume.local} for Airflow, {volume.on_host} for the Docker engine at"
        f" {engine_address()}; a container of {image} read and wrote it as user {container_user(settings)}"
    )


if __name__ == "__main__":
    main()
