"""One model's container: started, followed and removed by the Docker provider's operator, made safe.

``DockerOperator`` brings the connection to the engine (address, TLS, registry login); what it does with containers
is replaced here: limits that hold, no rights, labels instead of names, a log that is followed again when its stream
breaks, and adoption of a container that an earlier try left running.
"""

from __future__ import annotations

import os
import re
import threading
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import docker.errors
import requests
import urllib3
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import ResumableJobMixin
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.types import Mount

from numerai_pipeline.container_limits import locked_down
from numerai_pipeline.data_volume import find_data_volume
from numerai_pipeline.manifests import discard
from numerai_pipeline.run_layout import CONTAINER_RUN
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from datetime import timedelta
    from pathlib import Path

    from airflow.sdk import Context

EXIT_NOT_RETRIED = {64: "bad parameters", 65: "bad data", 66: "an input is missing"}
EXIT_MEANING = EXIT_NOT_RETRIED | {70: "a bug", 75: "try again later"}
EXIT_MEMORY = (71, 137)  # the container's own word for it, and the kernel's
KEPT_LOG_LINES = 200
# How the contract package begins its last line; the task says the same in its own words.
_OWN_VERDICT = re.compile(r"^FAILED \(\d+, [^)]*\): ")
# The engine's answers that say nothing about the container itself.
_STREAM_BROKE = (requests.RequestException, urllib3.exceptions.HTTPError, OSError)


@dataclass(frozen=True)
class ContainerRequest:
    """What a container is started with.

    Attributes
    ----------
    image : str
        Full name of the image.
    environment : dict
        The contract's variables.
    run_directory : Path
        The run's directory on the data volume; the container sees it as ``/data``.
    read_only : tuple of Path
        Files in it that the container may only read.
    hidden : tuple of Path
        Files in it that the container must not know: it finds them empty.
    outputs : tuple of Path
        Files it may leave; what an earlier container left there is removed before this one starts.
    labels : dict
        ``numerai`` (installation id), ``numerai.dag``, ``.run``, ``.task``, ``.try``, ``.inputs``.
    user : str
        User and group id it runs as.
    time_limit : timedelta
        How long it may take, from this task's start; then it is removed.
    memory : int
        Hard limit, MiB; there is no swap beyond it.
    cores : int
        Hard limit, where the engine's host has more.
    """

    image: str
    environment: dict[str, str]
    run_directory: Path
    read_only: tuple[Path, ...]
    hidden: tuple[Path, ...]
    outputs: tuple[Path, ...]
    labels: dict[str, str]
    user: str
    time_limit: timedelta
    memory: int
    cores: int


class ModelContainer(ResumableJobMixin, DockerOperator):
    """Runs one container to its end, or takes over the one that an earlier try of the same task left."""

    external_id_key = "model_container"

    def __init__(self, *, request: ContainerRequest, **kwargs: Any) -> None:
        super().__init__(
            image=request.image,
            environment=request.environment,
            labels=request.labels,
            user=request.user,
            network_mode="none",
            mount_tmp_dir=False,
            auto_remove="force",
            **kwargs,
        )
        self.request = request
        self.container_id: str | None = None
        self._expired = False
        self.last_lines: deque[str] = deque(maxlen=KEPT_LOG_LINES)

    def run(self, context: Context) -> None:
        """Run the container to its end.

        Raises
        ------
        AirflowFailException
            When trying again cannot help: exit codes 64-66, or an image that is nowhere to be had.
        AirflowException
            When it can.
        """
        self._need_image()
        # A timer of our own: Airflow's limit is fixed when the DAG is parsed, a search's time is chosen for each run.
        clock = threading.Timer(self.request.time_limit.total_seconds(), self._expire)
        clock.daemon = True
        clock.start()
        try:
            self.execute_resumable(context)
        finally:
            clock.cancel()

    def _expire(self) -> None:
        self._expired = True
        self.on_kill()

    def _need_image(self) -> None:
        if self.cli.images(name=self.image):
            return
        self.log.info("pulling image %s", self.image)
        try:
            self.cli.pull(self.image)
        except docker.errors.APIError as error:
            msg = (
                f"image {self.image} is not on this machine and cannot be pulled ({error.explanation}): build the model"
                " images with `make images`, or set NUMERAI_IMAGE_REGISTRY to where they are"
            )
            raise AirflowFailException(msg) from None

    def submit_job(self, context: Context) -> str:  # noqa: ARG002 - the mixin's signature
        """Start a container and return its id; take over one of an earlier try if it does the very same work."""
        for container in self._earlier_containers():
            if self.container_id is None and self._does_the_same(container):
                self.container_id = container["Id"]
                self.log.info("taking over container %s of an earlier try", self.container_id[:12])
            else:
                self.log.info("removing container %s, left by an earlier try", container["Id"][:12])
                self._remove(container["Id"])
        if self.container_id is None:
            for output in self.request.outputs:
                discard(output)
            self.container_id = self._create()
            self.cli.start(self.container_id)
            self.log.info("started container %s from %s", self.container_id[:12], self.image)
        return self.container_id

    def _earlier_containers(self) -> list[dict[str, Any]]:
        told_apart_by = ("numerai", "numerai.dag", "numerai.run", "numerai.task")
        labels = [f"{name}={self.request.labels[name]}" for name in told_apart_by]
        containers: list[dict[str, Any]] = self.cli.containers(all=True, filters={"label": labels})
        return containers

    def _does_the_same(self, container: dict[str, Any]) -> bool:
        same_inputs = container["Labels"].get("numerai.inputs") == self.request.labels["numerai.inputs"]
        return same_inputs and self._status(container["Id"]) in ("running", "succeeded")

    def _create(self) -> str:
        host_config = locked_down(self.cli, self._mounts(), memory=self.request.memory, cores=self.request.cores)
        container_id: str = self.cli.create_container(
            image=self.image,
            environment=self.environment,
            user=self.user,
            labels=self.labels,
            host_config=host_config,
        )["Id"]
        return container_id

    def _mounts(self) -> list[Mount]:
        volume = find_data_volume(load_settings(), self.cli)
        run = self.request.run_directory
        sources = {path: str(volume.host_path(path)) for path in self.request.read_only}
        sources |= dict.fromkeys(self.request.hidden, os.devnull)

        def inside(path: Path) -> str:
            return str(CONTAINER_RUN.directory / path.relative_to(run))

        return [
            Mount(str(CONTAINER_RUN.directory), str(volume.host_path(run)), type="bind"),
            *(Mount(inside(path), source, "bind", read_only=True) for path, source in sources.items()),
        ]

    def get_job_status(self, external_id: Any, context: Context) -> str:  # noqa: ARG002 - the mixin's signature
        """Tell where an earlier try's container stands: running, succeeded, failed, other (inputs), or gone."""
        container = next((found for found in self._earlier_containers() if found["Id"] == external_id), None)
        if container is None:
            return "gone"
        if container["Labels"].get("numerai.inputs") != self.request.labels["numerai.inputs"]:
            return "other"
        self.container_id = external_id
        return self._status(external_id)

    def _status(self, container_id: str) -> str:
        state = self.cli.inspect_container(container_id)["State"]
        if state["Status"] in ("running", "created", "restarting", "paused"):
            return "running" if state["Status"] != "created" else "failed"
        return "succeeded" if state["ExitCode"] == 0 else "failed"

    def is_job_active(self, status: str) -> bool:
        """Tell whether the container still works."""
        return status == "running"

    def is_job_succeeded(self, status: str) -> bool:
        """Tell whether the container ended well."""
        return status == "succeeded"

    def poll_until_complete(self, external_id: Any, context: Context) -> None:  # noqa: ARG002 - the mixin's signature
        """Follow the container to its end, pass its log on, remove it, and raise when it failed."""
        try:
            state = self._follow(external_id)
        except docker.errors.NotFound:
            task = self.request.labels["numerai.task"]
            minutes = self.request.time_limit.total_seconds() / 60
            msg = (
                f"{task}: stopped after its time limit of {minutes:g} minutes; raise `time_limit` of task {task} in"
                " models.yaml, or run on fewer rows or features"
                if self._expired
                else f"{task}: somebody removed the container while it ran"
            )
            raise AirflowException(msg) from None
        except (docker.errors.DockerException, *_STREAM_BROKE) as error:
            # The container may well be healthy: the next try finds it by its labels and goes on with it.
            msg = f"the Docker engine stopped answering: {error}"
            raise AirflowException(msg) from error
        except BaseException:
            # A time-out, a kill, an interrupt: nobody will wait for this container any more.
            self._remove(external_id)
            raise
        self._remove(external_id)
        self._raise_if_failed(state)

    def get_job_result(self, external_id: Any, context: Context) -> None:  # noqa: ARG002 - the mixin's signature
        """Clean up after a container that ended well while nobody watched."""
        self._remove(external_id)

    def _follow(self, container_id: str) -> dict[str, Any]:
        seen = ""
        while True:
            try:
                seen = self._pass_log_on(container_id, seen)
                # Returns when the container has ended; its time limit is the pause before the next look.
                self.cli.wait(container_id, timeout=5)
            except _STREAM_BROKE as error:
                self.log.debug("the log stream broke: %s", error)
            state: dict[str, Any] = self.cli.inspect_container(container_id)["State"]
            if state["Status"] in ("exited", "dead"):
                self._pass_log_on(container_id, seen, follow=False)
                return state

    def _pass_log_on(self, container_id: str, seen: str, *, follow: bool = True) -> str:
        """Write the log's lines that are newer than ``seen``, the engine's time stamp of the last one written."""
        written_before, rest = seen, b""
        for chunk in self.cli.logs(container_id, stream=True, follow=follow, timestamps=True):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                stamp, _, text = line.decode("utf-8", errors="replace").rstrip().partition(" ")
                if stamp > written_before:
                    self.last_lines.append(text)
                    self.log.info("%s", text)
                    seen = stamp
        return seen

    def _raise_if_failed(self, state: dict[str, Any]) -> None:
        code, task = state["ExitCode"], self.request.labels["numerai.task"]
        if code == 0:
            return
        if state["OOMKilled"] or code in EXIT_MEMORY:
            msg = (
                f"{task}: not enough memory (exit code {code}): its limit is {self.request.memory} MiB; raise `memory`"
                f" of task {task} in models.yaml, or run on fewer rows or features"
            )
            raise AirflowException(msg)
        last = next((line for line in reversed(self.last_lines) if line.strip()), "it said nothing")
        last = _OWN_VERDICT.sub("", last)
        msg = f"{task}: {EXIT_MEANING.get(code, 'failed')} (exit code {code}): {last}"
        raise AirflowFailException(msg) if code in EXIT_NOT_RETRIED else AirflowException(msg)

    def _remove(self, container_id: str) -> None:
        try:
            self.cli.remove_container(container_id, force=True, v=True)
        except docker.errors.NotFound:
            pass
        except docker.errors.APIError as error:
            # 409: somebody else is removing it this very moment.
            if error.status_code != 409:
                raise

    def on_kill(self) -> None:
        """Remove the container at once: it must be gone before Airflow's supervisor loses patience (5 s)."""
        if self.container_id is not None:
            self._remove(self.container_id)
