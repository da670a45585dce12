"""One model's container: started, followed and removed by the Docker provider's operator, made safe.

``DockerOperator`` brings the connection to the engine (address, TLS, registry login); what it does with containers
is replaced here: limits that hold, no rights, labels instead of names, a log that is followed again when its stream
breaks, and adoption of a container that an earlier try left. Whatever becomes of a task's process, at most one
container of the task works at any time:

- Told to end by Airflow (marked failed, cleared, out of time, shut down), it takes its container with it.
- Killed, or left alone by its supervisor, it leaves the container to the next try, which finds it by its labels.
- Without an engine it waits (``docker_engine.py``), and then leaves the container to the next try as well. A stream
  that breaks says nothing about the container; only looking at the container does.

All of this holds for a container on one engine and for one that a swarm starts (``model_service.py``). What differs
is how a container is started, found, looked at, read and removed: the methods below the line "How an engine does it".
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import docker.errors
from airflow.providers.docker.operators.docker import DockerOperator
from airflow.sdk import ResumableJobMixin
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from docker.types import Mount

from numerai_pipeline.container_exits import EXIT_KILLED, KEPT_LOG_LINES, verdict, write_failure_log
from numerai_pipeline.container_limits import locked_down
from numerai_pipeline.container_log import ContainerLog
from numerai_pipeline.data_volume import find_data_volume
from numerai_pipeline.docker_engine import EngineSilentError, PatientEngine, is_silence, reaching, remove_container
from numerai_pipeline.run_layout import CONTAINER_RUN
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from airflow.sdk import Context
    from docker import APIClient

    from numerai_pipeline.workspace import Workspace

TOLD_APART_BY = ("numerai", "numerai.dag", "numerai.run", "numerai.task")
# The kernel's word that a container ran out of memory may come a moment after its end.
_OOM_SECONDS = 1.0
_ENDED = ("exited", "dead")


class OrphanedError(AirflowException):
    """The supervisor of this task is gone: nobody hears what the task says, and Airflow starts another try."""


@dataclass(frozen=True)
class ContainerRequest:
    """What a container is started with.

    Attributes
    ----------
    image : str
        Full name of the image.
    environment : dict
        The contract's variables.
    workspace : Workspace
        What it sees as ``/data``.
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
    workspace: Workspace
    labels: dict[str, str]
    user: str
    time_limit: timedelta
    memory: int
    cores: int


class ModelContainer(ResumableJobMixin, DockerOperator):
    """Runs one container to its end, or takes over the one that an earlier try of the same task left."""

    external_id_key = "model_container"
    log_key = "model_container_log"
    noun = "container"

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
        self.task_name = request.labels["numerai.task"]
        self.container_id: str | None = None
        self._expired = self._told_to_end = self._is_new = False
        self._parent = os.getppid()
        self._engine = PatientEngine(load_settings().engine_timeout_seconds, self._is_stopped)
        self._followed: ContainerLog | None = None
        self._meanwhile: Callable[[], object] = lambda: None

    def run(self, context: Context, accept: Callable[[], None], meanwhile: Callable[[], object] = lambda: None) -> None:
        """Run the container to its end, have what it left accepted, and remove it.

        Parameters
        ----------
        context : Context
            The task's.
        accept : callable
            Takes what the container left out of the workspace, and raises when it is not good.
        meanwhile : callable
            Prepares for that, in a thread of its own, while a container starts; it must be no harm to leave out.

        Raises
        ------
        AirflowFailException
            When trying again cannot help: exit codes 64-66, or an image that is nowhere to be had.
        AirflowException
            When it can.
        """
        # A timer of our own: Airflow's limit is fixed when the DAG is parsed, a search's time is chosen for each run.
        clock = threading.Timer(self.request.time_limit.total_seconds(), self._expire)
        clock.daemon = True
        clock.start()
        self._meanwhile = meanwhile
        try:
            self._ask(self._get_ready)
            self.execute_resumable(context)
            accept()
        except (EngineSilentError, OrphanedError):
            # The container may well be healthy: the next try finds it by its labels and goes on with it.
            raise
        except BaseException as error:
            # Whatever was to be said to a supervisor that is gone failed as well.
            self._raise_if_orphaned(context)
            # A failure, a time-out, a kill, an interrupt: nobody will wait for this container any more.
            self._remove_in_any_case()
            self._keep_log(error)
            self.request.workspace.salvage()
            raise
        finally:
            clock.cancel()
        self._remove_in_any_case()
        self.request.workspace.remove()

    def tidy_up(self) -> None:
        """Remove what a try left that was killed when its work was done: a container that ended, and its workspace."""
        try:
            for container in self._ask(self._earlier_containers):
                self._ask(partial(self._remove_wholly, container["Id"]))
        except (AirflowException, docker.errors.DockerException, OSError) as error:
            self.log.warning("a %s of an earlier try could not be removed: %s", self.noun, error)
        self.request.workspace.remove()

    def on_kill(self) -> None:
        """Remove the container at once: it must be gone before Airflow's supervisor loses patience (5 s)."""
        self._told_to_end = True
        if self.container_id is not None:
            self._remove(self.container_id)

    def _expire(self) -> None:
        self._expired = True
        if self.container_id is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                self._remove(self.container_id)

    def _is_stopped(self) -> bool:
        return self._expired or self._told_to_end

    def _raise_if_stopped(self) -> None:
        if self._expired:
            minutes = self.request.time_limit.total_seconds() / 60
            msg = (
                f"{self.task_name}: stopped after its time limit of {minutes:g} minutes; raise `time_limit` of task"
                f" {self.task_name} in models.yaml, or run on fewer rows or features"
            )
            raise AirflowException(msg)
        if self._told_to_end:
            msg = f"{self.task_name}: stopped because Airflow said so (marked, cleared, out of time, or shut down)"
            raise AirflowException(msg)

    def _raise_if_orphaned(self, context: Context) -> None:
        """Leave the container to the next try when this process has lost its supervisor, and so its voice."""
        if os.getppid() == self._parent:
            return
        store = context.get("task_state_store")
        try:  # a terminal that was closed is no supervisor: where Airflow answers, all is well
            if store is not None:
                store.get(self.external_id_key)
        except Exception as silence:
            msg = f"{self.task_name}: this process has lost its supervisor; the next try goes on with the container"
            raise OrphanedError(msg) from silence
        self._parent = os.getppid()

    def _ask(self, question: Callable[[], Any]) -> Any:
        """Ask the engine, and wait for it where it does not answer, unless nobody waits for the answer any more."""
        try:
            return self._engine.ask(question)
        except EngineSilentError:
            self._raise_if_stopped()
            raise

    def submit_job(self, context: Context) -> str:  # noqa: ARG002 - the mixin's signature
        """Start a container and return its id; take over one of an earlier try if it does the very same work."""
        # asked as a whole: where the engine took an order and could not say so, the labels tell
        found: str = self._ask(self._take_over_or_start)
        return found

    def _take_over_or_start(self) -> str:
        self.container_id = None
        for container in self._earlier_containers():
            if self.container_id is None and self._does_the_same(container):
                self.container_id = container["Id"]
                self.log.info("taking over %s %s of an earlier try", self.noun, container["Id"][:12])
            else:
                self.log.info(
                    "removing %s %s, left by an earlier try (%s)",
                    self.noun,
                    container["Id"][:12],
                    container["Status"],
                )
                self._remove_wholly(container["Id"])
        if self.container_id is None:
            self.request.workspace.lay_out(self.request.user)
            self.container_id = self._start()
            self._is_new = True
            self.log.info("started %s %s from %s", self.noun, self.container_id[:12], self.image)
            self._raise_if_stopped()
        return self.container_id

    def _prepare_for_its_end(self) -> None:
        """Use the time that an engine takes to start a container, in which this process would only wait."""
        threading.Thread(target=self._meanwhile, daemon=True).start()

    def _does_the_same(self, container: dict[str, Any]) -> bool:
        same_inputs = container["Labels"].get("numerai.inputs") == self.request.labels["numerai.inputs"]
        return same_inputs and self._status(container["Id"]) in ("running", "succeeded")

    def get_job_status(self, external_id: Any, context: Context) -> str:  # noqa: ARG002 - the mixin's signature
        """Tell where an earlier try's container stands: running, succeeded, failed, other (inputs), or gone."""
        status: str = self._ask(partial(self._earlier_status, external_id))
        return status

    def _earlier_status(self, container_id: str) -> str:
        container = next((found for found in self._earlier_containers() if found["Id"] == container_id), None)
        if container is None:
            return "gone"
        if container["Labels"].get("numerai.inputs") != self.request.labels["numerai.inputs"]:
            return "other"
        return self._status(container_id)

    def _status(self, container_id: str) -> str:
        state = self._look(container_id)
        if state["Status"] in ("running", "restarting", "paused"):
            return "running"
        if state["Status"] == "created":  # nobody came to start it
            return "failed"
        return "succeeded" if state["ExitCode"] == 0 else "failed"

    def is_job_active(self, status: str) -> bool:
        """Tell whether a container is to be followed: one that ended well, too, for the log that nobody saw."""
        return status in ("running", "succeeded")

    def is_job_succeeded(self, status: str) -> bool:
        """Tell whether the container ended well; never asked for one that is followed."""
        return status == "succeeded"

    def poll_until_complete(self, external_id: Any, context: Context) -> None:
        """Follow the container to its end, pass its log on, and raise when it failed."""
        self.container_id = external_id
        self._raise_if_stopped()
        log = self._followed = self._open_log(external_id, context)
        try:
            state = self._follow(external_id, log, context)
        except docker.errors.NotFound:
            self._raise_if_stopped()
            msg = f"{self.task_name}: somebody removed the {self.noun} while it ran"
            raise AirflowException(msg) from None
        self._raise_if_stopped()
        error = self._verdict(state, log)
        if error is not None:
            raise error

    def _verdict(self, state: dict[str, Any], log: ContainerLog) -> AirflowException | None:
        return verdict(self.task_name, state, self.request.memory, list(log.last_lines), self._engine.silent_seconds)

    def get_job_result(self, external_id: Any, context: Context) -> None:
        """Give nothing: what a container leaves are files."""

    def _open_log(self, container_id: str, context: Context) -> ContainerLog:
        """Begin where the last try that followed this container stopped."""
        store = context.get("task_state_store")
        # to ask Airflow takes a moment, and nobody has noted anything of a container that was started just now
        noted = store.get(self.log_key) if store is not None and not self._is_new else None
        seen = noted["seen"] if isinstance(noted, dict) and noted.get("container") == container_id else ""

        def note(stamp: str) -> None:
            if store is not None:
                store.set(self.log_key, {"container": container_id, "seen": stamp})

        return ContainerLog(str(seen), partial(self.log.info, "%s"), note, KEPT_LOG_LINES)

    def _follow(self, container_id: str, log: ContainerLog, context: Context) -> dict[str, Any]:
        while True:
            self._raise_if_orphaned(context)
            state = self._ask(partial(self._look, container_id))
            self._raise_if_stopped()
            if state["Status"] in _ENDED:
                self._ask(partial(self._pass_on, container_id, log, to_its_end=False))
                return self._with_word_from_kernel(container_id, state)
            log.note_down()
            try:
                self._pass_on(container_id, log, to_its_end=True)
            except Exception as error:
                if not is_silence(error):
                    raise
                self.log.debug("the log stream broke: %s", error)

    def _with_word_from_kernel(self, container_id: str, state: dict[str, Any]) -> dict[str, Any]:
        deadline = time.monotonic() + _OOM_SECONDS
        while state["ExitCode"] == EXIT_KILLED and not state["OOMKilled"] and time.monotonic() < deadline:
            time.sleep(0.1)
            state = self._ask(partial(self._look, container_id))
        return state

    def _remove_in_any_case(self) -> None:
        """Remove the container; where the engine is away, that is left to the next try or to the reaper."""
        if self.container_id is None:
            return
        try:
            self._engine.ask(partial(self._remove_wholly, self.container_id))
        except (AirflowException, docker.errors.DockerException, OSError) as error:
            self.log.warning("%s %s could not be removed: %s", self.noun, self.container_id[:12], error)

    def _keep_log(self, why: BaseException) -> None:
        if self._followed is None or not self._followed.last_lines:
            return
        file = self.request.workspace.run.failure_log(self.task_name, int(self.request.labels["numerai.try"]))
        try:
            write_failure_log(file, why, self._followed.last_lines)
            self.log.info("the end of its log is kept in %s", file)
        except OSError as error:
            self.log.warning("the end of its log could not be kept: %s", error)

    # How an engine does it

    def _get_ready(self) -> None:
        """See to it that a container can be started."""
        self._need_image()

    def _need_image(self) -> None:
        with reaching():
            client = self.cli
        try:
            # to list images takes an engine that has many of them a second
            client.inspect_image(self.image)  # type: ignore[no-untyped-call]
        except docker.errors.NotFound:
            self._pull_image(client)

    def _pull_image(self, client: APIClient) -> None:
        self.log.info("pulling image %s", self.image)
        try:
            client.pull(self.image)
        except docker.errors.APIError as error:
            if is_silence(error):
                raise
            msg = (
                f"image {self.image} is not on this machine and cannot be pulled ({error.explanation}): build the model"
                " images with `make images`, or set NUMERAI_IMAGE_REGISTRY to where they are"
            )
            raise AirflowFailException(msg) from None

    def _earlier_containers(self) -> list[dict[str, Any]]:
        labels = [f"{name}={self.request.labels[name]}" for name in TOLD_APART_BY]
        containers: list[dict[str, Any]] = self.cli.containers(all=True, filters={"label": labels})
        return containers

    def _start(self) -> str:
        created = self._create()
        self._raise_if_stopped()
        self.container_id = created
        self._prepare_for_its_end()
        self.cli.start(created)
        return created

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
        workspace = self.request.workspace
        sources = {path: str(volume.host_path(path)) for path in workspace.readable()}
        sources |= dict.fromkeys(workspace.hidden, os.devnull)

        def inside(path: Any) -> str:
            return str(CONTAINER_RUN.directory / path.relative_to(workspace.run.directory))

        return [
            Mount(str(CONTAINER_RUN.directory), str(volume.host_path(workspace.directory)), type="bind"),
            *(Mount(inside(path), source, "bind", read_only=True) for path, source in sources.items()),
        ]

    def _look(self, container_id: str) -> dict[str, Any]:
        state: dict[str, Any] = self.cli.inspect_container(container_id)["State"]
        return state

    def _pass_on(self, container_id: str, log: ContainerLog, *, to_its_end: bool) -> None:
        """Pass on what is new in the log, and return when it is worth another look at the container."""
        log.follow(self.cli.logs(container_id, timestamps=True, stream=True, follow=to_its_end), to_its_end=to_its_end)
        if to_its_end:
            # The stream ends with the container, or with its connection. The pause before the next look:
            self.cli.wait(container_id, timeout=5)

    def _remove(self, container_id: str) -> None:
        """Have a container removed, at once, working or not; one that is gone is fine."""
        remove_container(self.cli, container_id)

    def _remove_wholly(self, container_id: str) -> None:
        """Remove a container and return when nothing of it works any more."""
        self._remove(container_id)
