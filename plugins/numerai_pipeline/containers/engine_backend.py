"""Containers on one Docker engine."""

from __future__ import annotations

import contextlib
import logging
import threading
from datetime import datetime
from typing import TYPE_CHECKING, Any

import docker.errors
import requests

from numerai_pipeline.containers.backend import ContainerState, FoundContainer
from numerai_pipeline.containers.data_volume import find_data_volume
from numerai_pipeline.containers.engine import is_connection_error
from numerai_pipeline.containers.engine_connection import EngineConnection
from numerai_pipeline.containers.exit_codes import error_from_exit
from numerai_pipeline.containers.labels import ContainerLabels, volume_filter
from numerai_pipeline.containers.limits import sandbox_host_config
from numerai_pipeline.containers.mounts import mount_on_host
from numerai_pipeline.core.errors import BadInputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Literal

    from docker import APIClient
    from docker.types import CancellableStream

    from numerai_pipeline.containers.backend import Connect, ContainerRequest
    from numerai_pipeline.containers.log import ContainerLog
    from numerai_pipeline.core.errors import PipelineError
    from numerai_pipeline.core.settings import Settings

log = logging.getLogger(__name__)

STALL_SECONDS = 20.0
"""Seconds without a line after which a stream is checked."""
_WAIT_SECONDS = 5
# the engine knows no driver of GPUs, or the driver has no such GPU
_NO_GPU = ("could not select device driver", "nvidia-container-cli")
_PHASES: dict[str, Literal["created", "running", "removing", "ended"]] = {
    "created": "created",
    "running": "running",
    "restarting": "running",
    "paused": "running",
    "removing": "removing",
    "exited": "ended",
    "dead": "ended",
}


class EngineBackend:
    """Runs containers on the Docker engine that ``connect`` returns a connection to."""

    kind = "container"

    def __init__(self, connect: Connect, settings: Settings) -> None:
        self._connect = connect
        self._settings = settings
        self._stream: CancellableStream[bytes] | None = None

    @property
    def _client(self) -> APIClient:
        return self._connect()

    def prepare(self, request: ContainerRequest) -> None:
        """Pull the image if the engine does not have it."""
        client = self._client
        try:
            # an engine with many images takes a second to list them
            client.inspect_image(request.image)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            _pull(client, request.image)

    def create(self, request: ContainerRequest) -> str:
        """Create a container in its sandbox and return its id."""
        client = self._client
        volume = find_data_volume(self._settings, client)
        mounts = [mount_on_host(mount, volume) for mount in request.mounts]
        created = client.create_container(
            image=request.image,
            environment=dict(request.environment),
            user=request.user,
            labels=request.labels.to_dict(),
            host_config=sandbox_host_config(
                client, mounts, memory=request.memory, cores=request.cores, gpus=request.gpus
            ),
        )
        return str(created["Id"])

    def start(self, container_id: str, request: ContainerRequest) -> None:
        """Start a created container.

        Raises
        ------
        BadInputError
            When the engine has no GPU for it.
        """
        try:
            self._client.start(container_id)
        except docker.errors.APIError as error:
            explanation = str(error.explanation)
            if not request.gpus or not any(sign in explanation for sign in _NO_GPU):
                raise
            msg = (
                f"{request.task}: models.yaml sets `gpus: {request.gpus}`, but the Docker engine at"
                f" {EngineConnection.from_environment().url} cannot provide that ({explanation}): install NVIDIA's"
                " driver and Container Toolkit on its machine and restart the engine, or change `gpus` of task"
                f" {request.task} in models.yaml"
            )
            raise BadInputError(msg) from None

    def find(self, filters: Sequence[str]) -> list[FoundContainer]:
        """List the containers with all of these labels."""
        found = self._client.containers(all=True, filters={"label": list(filters)})
        return [
            FoundContainer(
                id=each["Id"],
                labels=ContainerLabels.from_dict(each["Labels"]),
                status=each["Status"],
                has_ended=_PHASES.get(each["State"]) == "ended",
            )
            for each in found
        ]

    def inspect(self, container_id: str) -> ContainerState:
        """Return the state of a container."""
        state: dict[str, Any] = self._client.inspect_container(container_id)["State"]
        return ContainerState(_PHASES[state["Status"]], state["ExitCode"], state["OOMKilled"])

    def stream_log(self, container_id: str, log: ContainerLog, *, until_end: bool) -> None:
        """Write new lines to the log, with ``until_end`` until the container ends or the connection breaks."""
        stream = self._client.logs(container_id, timestamps=True, stream=True, follow=until_end)
        self._stream, over = stream, threading.Event()
        if until_end:
            threading.Thread(target=self._end_stalled_stream, args=(container_id, log, over), daemon=True).start()
        try:
            log.follow(stream, until_end=until_end)
        finally:
            over.set()
            self._stream, interrupted = None, self._stream is None
        if until_end and not interrupted:
            # the stream ended with the container or with its connection: without a pause the caller would inspect it
            # again and again
            self._client.wait(container_id, timeout=_WAIT_SECONDS)

    def _end_stalled_stream(self, container_id: str, log: ContainerLog, over: threading.Event) -> None:
        """Interrupt a stream that is silent although the container has logged more, or has ended.

        Seen with Docker 20.10: when the engine drops lines of a capped log faster than they are read, their stream
        never sends anything again, and does not end with the container.
        """
        read_until = log.read_until
        while not over.wait(STALL_SECONDS):
            if log.read_until == read_until:
                # a stream of an unreachable engine ends by itself
                with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
                    newest = self._client.logs(container_id, timestamps=True, tail=1).decode(errors="replace")
                    if newest.partition(" ")[0] > read_until or self.inspect(container_id).phase == "ended":
                        self.interrupt()
                        return
            read_until = log.read_until

    def interrupt(self) -> None:
        """Close the followed stream; over SSH it ends with its next line."""
        stream, self._stream = self._stream, None
        if stream is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                stream.close()

    def request_removal(self, container_id: str) -> None:
        """Remove a container, running or not."""
        try:
            self._client.remove_container(container_id, force=True, v=True)
        except docker.errors.NotFound:
            return
        except docker.errors.APIError as error:
            # 409: another process is removing it at this moment
            if error.status_code != 409:
                raise

    def remove_and_wait(self, container_id: str) -> None:
        """Remove a container; the engine answers when its processes have ended."""
        self.request_removal(container_id)

    def error_from_exit(
        self, request: ContainerRequest, state: ContainerState, last_lines: Sequence[str], unreachable_seconds: float
    ) -> PipelineError | None:
        """Return the error that the end of a container stands for."""
        return error_from_exit(request.task, state, request.memory, last_lines, unreachable_seconds)

    def last_change(self, container_id: str) -> datetime | None:
        """Return when a container ended or, if it still runs, was created; None if it does not exist."""
        try:
            seen = self._client.inspect_container(container_id)
        except docker.errors.NotFound:
            return None
        has_ended = _PHASES[seen["State"]["Status"]] == "ended"
        return datetime.fromisoformat(seen["State"]["FinishedAt"] if has_ended else seen["Created"])

    def written_bytes(self, found: FoundContainer) -> int:
        """Return the bytes that a container wrote outside of its mounts."""
        filters = {"id": found.id, "label": volume_filter(found.labels.volume)}
        return sum(each.get("SizeRw") or 0 for each in self._client.containers(all=True, size=True, filters=filters))


def _pull(client: APIClient, image: str) -> None:
    log.info("pulling image %s", image)
    try:
        client.pull(image)
    except docker.errors.APIError as error:
        if is_connection_error(error):
            raise
        msg = (
            f"image {image} is not on this machine and cannot be pulled ({error.explanation}): build the model images"
            " with `make images`, or set NUMERAI_IMAGE_REGISTRY to their registry and, if that requires a login,"
            " NUMERAI_DOCKER_CONN_ID to the Airflow connection with the login"
        )
        raise BadInputError(msg) from None
