"""Runs the container of a task to its end, across restarts of Airflow, of the Docker engine and of the task itself.

At most one container of a task runs at any time, in every state of the task's process:

- When Airflow ends the task (marked failed, cleared, timed out), the runner removes the container.
- When the process is killed, loses its supervisor, or is stopped while Airflow still calls the task running (a
  deploy, a reboot), the container keeps running. The next attempt, or another run that needs the same result, finds it
  by its labels and reattaches to it.
- While the engine is unreachable the runner waits (``engine.py``), then fails without removing the container, so
  that the next attempt can reattach. A broken log stream is not treated as a failure of the container; only its state,
  as the engine reports it, is.

The platform, one engine or a swarm, is a :class:`numerai_pipeline.containers.backend.Backend`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import docker.errors

from numerai_pipeline.containers.engine import EngineUnavailableError, RetryingEngine, is_connection_error
from numerai_pipeline.containers.exit_codes import EXIT_KILLED, KEPT_LOG_LINES, ContainerError, write_failure_log
from numerai_pipeline.containers.log import ContainerLog
from numerai_pipeline.core.errors import PipelineError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numerai_pipeline.containers.backend import Backend, ContainerRequest, ContainerState, FoundContainer

Result = TypeVar("Result")
log = logging.getLogger(__name__)

STATE_KEY = "model_container"
LOG_STATE_KEY = "model_container_log"
# the kernel may report that a container ran out of memory a moment after its end
_OOM_SECONDS = 1.0
_WATCH_SECONDS = 0.25


class ContainerKeptError(PipelineError):
    """An attempt ends, and its container keeps running."""


class SupervisorLostError(ContainerKeptError):
    """Airflow's supervisor of this process is gone; Airflow starts another attempt, which reattaches."""


class InterruptedAttemptError(ContainerKeptError):
    """The process is stopped while Airflow calls the task running; the next attempt reattaches."""


class ContinuesError(ContainerKeptError):
    """The moment has come from which this task no longer waits for its fit."""


class StateStore(Protocol):
    """State that Airflow keeps between the attempts of a task."""

    def get(self, key: str) -> Any:
        """Return a value; None if there is none."""

    def set(self, key: str, value: Any) -> None:
        """Store a value."""


class ContainerRunner:
    """Runs one container to its end, or reattaches to the container of an earlier attempt.

    Parameters
    ----------
    backend : Backend
        The platform.
    request : ContainerRequest
        The container.
    engine_timeout : float
        Seconds to wait for an unreachable engine.
    state : StateStore or None
        State of the task, from which a next attempt continues with the log.
    write_line : callable
        Receives each line of the container's log.
    warm_up : callable
        Prepares for the end of the container in a thread while the container starts; optional work only.
    is_task_active : callable
        Queries Airflow, when this process is to end, whether it runs the task or will retry it.
    follow_until : datetime, optional
        When to stop following the container, which then keeps running.

    Attributes
    ----------
    ends_at : datetime
        When the container exceeds its time limit, which counts from its creation and not from each attempt.
    """

    def __init__(
        self,
        backend: Backend,
        request: ContainerRequest,
        *,
        engine_timeout: float,
        state: StateStore | None,
        write_line: Callable[[str], object],
        warm_up: Callable[[], object],
        is_task_active: Callable[[], bool],
        follow_until: datetime | None = None,
    ) -> None:
        self.request = request
        self.ends_at = datetime.now(tz=UTC) + request.time_limit
        self._backend = backend
        self._state = state
        self._write_line = write_line
        self._warm_up = warm_up
        self._is_task_active = is_task_active
        self._follow_until = follow_until
        self._engine = RetryingEngine(engine_timeout, self._is_stopped)
        self._container_id: str | None = None
        self._stop_requested = self._killed = self._interrupted = self._expired = False
        self._is_new = self._has_warned = False
        self._parent = os.getppid()
        self._log: ContainerLog | None = None
        self._wait_reason = self._logged_placement = ""

    @contextlib.contextmanager
    def lifetime(self) -> Iterator[None]:
        """Prepare the platform for a container, limit the time of the block, and remove container and workspace after.

        If the block fails, the end of the container's log is saved and a finished fit is kept.
        If the engine or the supervisor is gone, this process is stopped, or it is time to stop following, the container
        keeps running.

        Raises
        ------
        BadInputError
            When another attempt cannot help: exit codes 64 to 69, or an image that is not available.
        PipelineError
            When another attempt can.
        """
        over = threading.Event()
        threading.Thread(target=self._watch, args=(over,), daemon=True).start()
        try:
            self._call_engine(partial(self._backend.prepare, self.request))
            yield
        except (EngineUnavailableError, ContainerKeptError):
            raise
        except BaseException as error:
            # without a supervisor, calls of Airflow fail as well: not a failure of the container
            self._raise_if_supervisor_lost()
            self._remove_best_effort()
            self._save_log_tail(error)
            self.request.workspace.reset()
            raise
        finally:
            over.set()
        self._remove_best_effort()
        self.request.workspace.remove()

    def reattach_or_start(self) -> str:
        """Reattach to a container of an earlier attempt that does the same work, else start one; return its id."""
        # retried as a whole: if the engine started a container and the answer was lost, it is found by its labels
        return self._call_engine(self._reattach_or_start)

    def can_reattach(self, container_id: str) -> bool:
        """Whether a container exists that does this task's work and runs or ended without an error."""

        def check() -> bool:
            found = next((each for each in self._earlier_containers() if each.id == container_id), None)
            return found is not None and self._is_same_work(found)

        return self._call_engine(check)

    def follow(self, container_id: str) -> None:
        """Wait for the end of the container while writing its log.

        Raises
        ------
        PipelineError
            When it fails, exceeds its time limit, is removed, or is stopped on Airflow's request.
        """
        self._container_id = container_id
        self._raise_if_stopped()
        self._log = self._open_log(container_id)
        try:
            if not self._is_new and self._call_engine(partial(self._backend.inspect, container_id)).is_active:
                created = self._call_engine(partial(self._backend.last_change, container_id))
                self.ends_at = (created or datetime.now(tz=UTC)) + self.request.time_limit
            state = self._follow(container_id, self._log)
        except docker.errors.NotFound:
            self._raise_if_stopped()
            msg = f"{self.request.task}: the {self._backend.kind} was removed by another process while it ran"
            raise ContainerError(msg) from None
        self._raise_if_stopped()
        last_lines = list(self._log.last_lines)
        error = self._backend.error_from_exit(self.request, state, last_lines, self._engine.unreachable_seconds)
        if error is not None:
            raise error

    def remove_leftovers(self) -> None:
        """Remove the ended container and the workspace of an attempt that was killed after its work was done."""
        try:
            for container in self._call_engine(self._earlier_containers):
                self._call_engine(partial(self._backend.remove_and_wait, container.id))
        except (PipelineError, docker.errors.DockerException, OSError) as error:
            log.warning("could not remove a %s of an earlier attempt: %s", self._backend.kind, error)
        self.request.workspace.remove()

    def request_stop(self) -> None:
        """Have the attempt end soon, with or without its container, as Airflow's state of the task requires.

        For a signal handler, which may interrupt a call of Airflow or of the engine and can therefore make none: the
        thread of :meth:`lifetime` does.
        """
        self._stop_requested = True

    def _watch(self, over: threading.Event) -> None:
        """Stop the attempt when it is time to, also while its container logs nothing."""
        while not over.wait(_WATCH_SECONDS):
            if self._stop_requested and not self._is_stopped():
                self._stop()
            elif datetime.now(tz=UTC) >= self.ends_at and not self._is_stopped():
                self._expired = True
                self._request_removal()
            if self._is_following_over():
                self._backend.interrupt()

    def _stop(self) -> None:
        """Remove the container if Airflow has ended the task; Airflow's supervisor kills this process after 5 s."""
        try:
            is_active = self._is_task_active()
        except Exception as error:  # noqa: BLE001 - of Airflow's API, which may be stopped at the same time
            log.info("Airflow does not report the state of the task (%s)", error)
            # an orphan is removed later, and a removed container is lost
            is_active = True
        if is_active:
            self._interrupted = True
        else:
            self._killed = True
            self._request_removal()

    def _request_removal(self) -> None:
        """Remove the container without waiting; the end of the attempt removes it again if this fails."""
        if self._container_id is not None:
            with contextlib.suppress(docker.errors.DockerException, OSError):
                self._backend.request_removal(self._container_id)

    def _is_stopped(self) -> bool:
        return self._expired or self._killed or self._interrupted

    def _is_following_over(self) -> bool:
        return self._is_stopped() or self._is_time_over() or os.getppid() != self._parent

    def _raise_if_stopped(self) -> None:
        if self._stop_requested and not self._is_stopped():
            self._stop()
        if not self._is_stopped():
            return
        task = self.request.task
        if self._interrupted:
            if self._log is not None:
                self._log.checkpoint()
            msg = f"{task}: this process is stopped; the next attempt reattaches to its {self._backend.kind}"
            raise InterruptedAttemptError(msg)
        if self._expired:
            minutes = self.request.time_limit.total_seconds() / 60
            msg = (
                f"{task}: stopped after its time limit of {minutes:g} minutes; raise `time_limit` of task {task} in"
                " models.yaml, or run on fewer rows or features"
            )
        else:
            msg = f"{task}: stopped on Airflow's request (marked, cleared, or timed out)"
        if self._wait_reason:
            msg += f". It never started: no node of the swarm had room for it ({self._wait_reason})"
        raise ContainerError(msg)

    def _raise_if_supervisor_lost(self) -> None:
        """Stop without removing the container if the Airflow supervisor is gone."""
        if os.getppid() == self._parent:
            return
        try:  # the parent may also be a terminal that was closed: then Airflow still answers
            if self._state is not None:
                self._state.get(STATE_KEY)
        except Exception as error:
            msg = f"{self.request.task}: this process has lost its supervisor; the next attempt will reattach"
            raise SupervisorLostError(msg) from error
        self._parent = os.getppid()

    def _call_engine(self, function: Callable[[], Result]) -> Result:
        """Call the engine, retrying while it is unreachable, until the task is stopped."""
        try:
            return self._engine.call(function)
        except EngineUnavailableError:
            self._raise_if_stopped()
            raise

    def _reattach_or_start(self) -> str:
        self._container_id = None
        for container in self._earlier_containers():
            if self._container_id is None and self._is_same_work(container):
                self._container_id = container.id
                log.info("reattaching to %s %s, which makes this result", self._backend.kind, container.id[:12])
            else:
                log.info(
                    "removing %s %s of an earlier attempt (%s)",
                    self._backend.kind,
                    container.id[:12],
                    container.status,
                )
                self._backend.remove_and_wait(container.id)
        if self._container_id is None:
            self.request.workspace.prepare(self.request.user)
            self._container_id = self._start()
            self._raise_if_stopped()
        return self._container_id

    def _start(self) -> str:
        # known at once, so that a request to stop removes it from here on
        created = self._container_id = self._backend.create(self.request)
        self.request.workspace.record_container(created)
        self._raise_if_stopped()
        threading.Thread(target=self._warm_up, daemon=True).start()
        self._backend.start(created, self.request)
        self._is_new = True
        log.info("started %s %s from %s", self._backend.kind, created[:12], self.request.image)
        return created

    def _earlier_containers(self) -> list[FoundContainer]:
        """List the containers of any run that make this result, and all others of this task instance."""
        own, kept = self.request.labels, self.request.kept_keys
        found = [each for each in self._backend.find(own.filters()) if each.labels.is_of_deployment(own.deployment)]
        return [
            each
            for each in found
            if each.labels.key not in kept and (each.labels.key == own.key or own.is_same_task_instance(each.labels))
        ]

    def _is_same_work(self, container: FoundContainer) -> bool:
        # the workspace may be a later one's: of another engine's container, or of another Airflow's
        if container.labels.key != self.request.labels.key or self.request.workspace.container not in (
            None,
            container.id,
        ):
            return False
        state = self._backend.inspect(container.id)
        return state.is_active or state.is_successful

    def _open_log(self, container_id: str) -> ContainerLog:
        """Start after the last line that an earlier attempt wrote."""
        # reading the state takes a moment, and there is none for a container that was just started
        stored = self._state.get(LOG_STATE_KEY) if self._state is not None and not self._is_new else None
        seen = stored["seen"] if isinstance(stored, dict) and stored.get("container") == container_id else ""

        store = partial(self._store_checkpoint, container_id)
        return ContainerLog(str(seen), self._write_line, store, KEPT_LOG_LINES, self._is_following_over)

    def _store_checkpoint(self, container_id: str, timestamp: str) -> None:
        """Store the timestamp of the last written line; a failure costs repeated lines in the next attempt only."""
        if self._state is None:
            return
        try:
            self._state.set(LOG_STATE_KEY, {"container": container_id, "seen": timestamp})
        except Exception as error:  # noqa: BLE001 - of Airflow's API: unavailable, or this attempt was cleared
            self._raise_if_supervisor_lost()
            level = logging.DEBUG if self._has_warned else logging.WARNING
            log.log(level, "could not store the position in the container's log: %s", error)
            self._has_warned = True

    def _is_time_over(self) -> bool:
        return self._follow_until is not None and datetime.now(tz=UTC) >= self._follow_until

    def _follow(self, container_id: str, container_log: ContainerLog) -> ContainerState:
        while True:
            self._raise_if_supervisor_lost()
            state = self._call_engine(partial(self._inspect, container_id))
            self._raise_if_stopped()
            if state.phase == "ended":
                self._call_engine(partial(self._backend.stream_log, container_id, container_log, until_end=False))
                return self._wait_for_oom_flag(container_id, state)
            if self._is_time_over():
                msg = f"{self.request.task}: its new fit is not ready"
                raise ContinuesError(msg)
            container_log.checkpoint()
            try:
                self._backend.stream_log(container_id, container_log, until_end=True)
            except Exception as error:
                if not is_connection_error(error):
                    raise
                log.debug("the log stream broke: %s", error)

    def _inspect(self, container_id: str) -> ContainerState:
        state = self._backend.inspect(container_id)
        self._wait_reason = state.wait_reason if state.phase == "waiting" else ""
        placement = self._wait_reason or state.node
        if placement and placement != self._logged_placement:
            message = "%s %s waits for a node: %s" if self._wait_reason else "%s %s is on node %s"
            log.info(message, self._backend.kind, container_id[:12], placement)
            self._logged_placement = placement
        return state

    def _wait_for_oom_flag(self, container_id: str, state: ContainerState) -> ContainerState:
        deadline = time.monotonic() + _OOM_SECONDS
        while state.exit_code == EXIT_KILLED and not state.oom_killed and time.monotonic() < deadline:
            time.sleep(0.1)
            state = replace(state, oom_killed=self._call_engine(partial(self._inspect, container_id)).oom_killed)
        return state

    def _remove_best_effort(self) -> None:
        """Remove the container; if the engine is unreachable, the next attempt or the orphan cleanup removes it."""
        if self._container_id is None:
            return
        try:
            self._engine.call(partial(self._backend.remove_and_wait, self._container_id))
        except (PipelineError, docker.errors.DockerException, OSError) as error:
            log.warning("could not remove %s %s: %s", self._backend.kind, self._container_id[:12], error)

    def _save_log_tail(self, error: BaseException) -> None:
        if self._log is None or not self._log.last_lines:
            return
        file = self.request.failure_log
        try:
            write_failure_log(file, error, self._log.last_lines)
            log.info("the end of the container's log is saved in %s", file)
        except OSError as failure:
            log.warning("could not save the end of the container's log: %s", failure)
