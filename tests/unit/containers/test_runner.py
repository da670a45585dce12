"""The runner's decisions, with a platform in memory: start or reattach, stop, time out, and leave a container alone."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import docker.errors
import pytest

from numerai_pipeline.containers.backend import Backend, ContainerRequest, ContainerState, FoundContainer
from numerai_pipeline.containers.engine import EngineUnavailableError
from numerai_pipeline.containers.exit_codes import ContainerError, error_from_exit
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.log import ContainerLog
from numerai_pipeline.containers.runner import (
    LOG_STATE_KEY,
    ContainerRunner,
    ContinuesError,
    InterruptedAttemptError,
    SupervisorLostError,
)
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import PipelineError

RUNNING, SUCCESS, FAILURE = ContainerState("running"), ContainerState("ended"), ContainerState("ended", exit_code=70)
LABELS = ContainerLabels("volume", "deployment", "dag", "run", "svm", attempt=2, key="0123")


@dataclass
class MemoryBackend:
    """A platform whose containers are entries of a dictionary.

    Attributes
    ----------
    states : dict
        Id → state of each container.
    labels : dict
        Id → labels of each container.
    log_lines : list of bytes
        Log of every container.
    next_state : ContainerState
        State of a container once its log was read to the end.
    is_unreachable : bool
        Whether every call fails as without an engine.
    created : list of str
        Ids of the containers that were created.
    on_stream : callable
        Called when a log is followed, before the container ends.
    created_at : datetime
        When every container was created.
    interrupted : Event
        Set when the log that is followed is to end.
    """

    kind: str = "container"
    states: dict[str, ContainerState] = field(default_factory=dict)
    labels: dict[str, ContainerLabels] = field(default_factory=dict)
    log_lines: list[bytes] = field(default_factory=list)
    next_state: ContainerState = SUCCESS
    is_unreachable: bool = False
    created: list[str] = field(default_factory=list)
    on_stream: Callable[[], object] = lambda: None
    created_at: datetime = field(default_factory=lambda: datetime.now(tz=UTC))
    interrupted: threading.Event = field(default_factory=threading.Event)

    def become_unreachable(self) -> None:
        self.is_unreachable = True

    def _call(self) -> None:
        if self.is_unreachable:
            raise ConnectionError

    def add(self, container_id: str, state: ContainerState, labels: ContainerLabels = LABELS) -> None:
        self.states[container_id], self.labels[container_id] = state, labels

    def prepare(self, request: ContainerRequest) -> None:  # noqa: ARG002 - the protocol's signature
        self._call()

    def create(self, request: ContainerRequest) -> str:
        self._call()
        created = f"new-{len(self.created)}"
        self.created.append(created)
        self.add(created, ContainerState("created"), request.labels)
        return created

    def start(self, container_id: str, request: ContainerRequest) -> None:  # noqa: ARG002 - the protocol's signature
        self._call()
        self.states[container_id] = RUNNING

    def find(self, filters: Sequence[str]) -> list[FoundContainer]:
        self._call()
        return [
            FoundContainer(each, labels, self.states[each].phase, self.states[each].phase == "ended")
            for each, labels in list(self.labels.items())
            if labels.filters() == list(filters)
        ]

    def inspect(self, container_id: str) -> ContainerState:
        self._call()
        if container_id not in self.states:
            raise docker.errors.NotFound("no such container")
        return self.states[container_id]

    def stream_log(self, container_id: str, log: ContainerLog, *, until_end: bool) -> None:
        self._call()
        log.follow([b"".join(self.log_lines)], until_end=until_end)
        if until_end:
            self.on_stream()
            if container_id in self.states:
                self.states[container_id] = self.next_state

    def interrupt(self) -> None:
        self.interrupted.set()

    def request_removal(self, container_id: str) -> None:
        self._call()
        self.states.pop(container_id, None)
        self.labels.pop(container_id, None)

    def remove_and_wait(self, container_id: str) -> None:
        self.request_removal(container_id)

    def error_from_exit(
        self, request: ContainerRequest, state: ContainerState, last_lines: Sequence[str], unreachable_seconds: float
    ) -> PipelineError | None:
        return error_from_exit(request.task, state, request.memory, last_lines, unreachable_seconds)

    def last_change(self, container_id: str) -> datetime | None:
        return self.created_at if container_id in self.states else None

    def written_bytes(self, found: FoundContainer) -> int:  # noqa: ARG002 - the protocol's signature
        return 0


class MemoryState(dict[str, Any]):
    """State of a task in memory."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


@pytest.fixture
def backend() -> MemoryBackend:
    return MemoryBackend()


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace(tmp_path / "work" / "svm" / "0123", {})


def runner_of(
    backend: Backend,
    workspace: Workspace,
    *,
    time_limit: timedelta = timedelta(minutes=1),
    state: MemoryState | None = None,
    lines: list[str] | None = None,
    is_task_active: Callable[[], bool] = lambda: False,
    follow_until: datetime | None = None,
) -> ContainerRunner:
    request = ContainerRequest(
        image="an-image",
        environment={},
        mounts=[],
        workspace=workspace,
        labels=LABELS,
        user=f"{os.getuid()}:{os.getgid()}",
        failure_log=workspace.directory.parent / "failure.log",
        time_limit=time_limit,
        memory=512,
        cores=1,
    )
    return ContainerRunner(
        backend,
        request,
        engine_timeout=0.01,
        state=MemoryState() if state is None else state,
        write_line=(lines if lines is not None else []).append,
        warm_up=lambda: None,
        is_task_active=is_task_active,
        follow_until=follow_until,
    )


def run(runner: ContainerRunner) -> None:
    """Run a container as the operator does."""
    with runner.lifetime():
        runner.follow(runner.reattach_or_start())


def test_run_success_removes_container_and_workspace(backend: MemoryBackend, workspace: Workspace) -> None:
    run(runner_of(backend, workspace))
    assert backend.created == ["new-0"]
    assert backend.states == {}
    assert not workspace.directory.exists()


def test_run_failure_removes_container_and_saves_log(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.next_state, backend.log_lines = FAILURE, [b"1 the last line\n"]
    with pytest.raises(ContainerError, match=r"svm: a bug \(exit code 70\): the last line"):
        run(runner_of(backend, workspace))
    assert backend.states == {}
    assert "the last line" in (workspace.directory.parent / "failure.log").read_text()


@pytest.mark.parametrize("state", [RUNNING, SUCCESS])
def test_reattach_or_start_same_result_reattaches(
    backend: MemoryBackend, workspace: Workspace, state: ContainerState
) -> None:
    backend.add("earlier", state, replace(LABELS, attempt=1))
    assert runner_of(backend, workspace).can_reattach("earlier")
    run(runner_of(backend, workspace))
    assert backend.created == []
    assert backend.states == {}


@pytest.mark.parametrize(
    ("state", "labels"),
    [
        (RUNNING, replace(LABELS, key="4567")),
        (FAILURE, LABELS),
        (ContainerState("created"), LABELS),
        (ContainerState("removing"), LABELS),
    ],
)
def test_reattach_or_start_other_work_is_removed_before_the_start(
    backend: MemoryBackend, workspace: Workspace, state: ContainerState, labels: ContainerLabels
) -> None:
    backend.add("earlier", state, labels)
    assert not runner_of(backend, workspace).can_reattach("earlier")
    assert runner_of(backend, workspace).reattach_or_start() == "new-0"
    assert list(backend.states) == ["new-0"]


def test_reattach_or_start_container_that_lost_its_workspace_is_removed(
    backend: MemoryBackend, workspace: Workspace
) -> None:
    run = runner_of(backend, workspace).reattach_or_start()
    assert runner_of(backend, workspace).can_reattach(run)
    # as of an attempt on another engine, which is lost as well
    workspace.prepare(f"{os.getuid()}:{os.getgid()}")
    assert not runner_of(backend, workspace).can_reattach(run)
    workspace.record_container("on another engine")
    assert not runner_of(backend, workspace).can_reattach(run)
    assert runner_of(backend, workspace).reattach_or_start() == "new-1"
    assert list(backend.states) == ["new-1"]


def test_reattach_or_start_container_of_another_run_is_used(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.add("of another run", RUNNING, replace(LABELS, run="another"))
    backend.add("of another result", RUNNING, replace(LABELS, run="another", key="4567"))
    runner = runner_of(backend, workspace)
    assert runner.can_reattach("of another run")
    assert not runner.can_reattach("of another result")
    run(runner)
    assert backend.created == []
    assert list(backend.states) == ["of another result"]


@pytest.mark.parametrize("finished", [True, False])
def test_run_failure_keeps_a_finished_fit_only(backend: MemoryBackend, workspace: Workspace, finished: bool) -> None:
    backend.next_state = FAILURE

    def fit() -> None:
        (workspace.model / "saved").mkdir()
        if finished:
            (workspace.model / "model.json").write_text("{}")
        (workspace.directory / "predictions" / "svm.csv").write_text("half")

    backend.on_stream = fit
    with pytest.raises(ContainerError):
        run(runner_of(backend, workspace))
    assert workspace.has_fit == finished
    assert [path.name for path in workspace.directory.glob("*")] == (["model"] if finished else [])
    assert workspace.directory.exists() == finished


def test_remove_leftovers_removes_containers_of_the_result_and_the_attempt(
    backend: MemoryBackend, workspace: Workspace
) -> None:
    backend.add("of this result", SUCCESS, replace(LABELS, run="another"))
    backend.add("of this task instance", SUCCESS, replace(LABELS, attempt=1, key="4567"))
    backend.add("of another run", RUNNING, replace(LABELS, run="another", key="4567"))
    workspace.prepare(f"{os.getuid()}:{os.getgid()}")
    runner_of(backend, workspace).remove_leftovers()
    assert list(backend.states) == ["of another run"]
    assert not workspace.directory.exists()


def test_reattach_or_start_second_container_is_removed(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.add("one", RUNNING)
    backend.add("two", RUNNING)
    assert runner_of(backend, workspace).reattach_or_start() == "one"
    assert list(backend.states) == ["one"]


def test_containers_of_other_tasks_are_not_touched(backend: MemoryBackend, workspace: Workspace) -> None:
    others = [
        replace(LABELS, task="xgboost"),
        replace(LABELS, run="another", key="4567"),
        replace(LABELS, volume="another"),
        replace(LABELS, deployment="another"),
    ]
    for number, labels in enumerate(others):
        backend.add(f"other-{number}", RUNNING, labels)
    run(runner_of(backend, workspace))
    assert len(backend.states) == len(others)


def test_stop_before_start_leaves_no_container(backend: MemoryBackend, workspace: Workspace) -> None:
    runner = runner_of(backend, workspace)
    runner.request_stop()
    with pytest.raises(ContainerError, match="stopped on Airflow's request"):
        run(runner)
    assert backend.states == {}


@pytest.fixture
def silent_backend(backend: MemoryBackend) -> MemoryBackend:
    """Make a platform whose containers log nothing and do not end; a log is followed until it is interrupted."""
    backend.next_state = RUNNING
    backend.on_stream = backend.interrupted.wait
    return backend


def stop_while_silent(backend: MemoryBackend, runner: ContainerRunner) -> None:
    def stop() -> None:
        runner.request_stop()
        assert backend.interrupted.wait(10)

    backend.on_stream = stop


def test_stop_of_an_ended_task_removes_its_silent_container(
    silent_backend: MemoryBackend, workspace: Workspace
) -> None:
    runner = runner_of(silent_backend, workspace)
    stop_while_silent(silent_backend, runner)
    with pytest.raises(ContainerError, match="stopped on Airflow's request"):
        run(runner)
    assert silent_backend.states == {}


def unreachable_airflow() -> bool:
    raise ConnectionError


@pytest.mark.parametrize("answer", [lambda: True, unreachable_airflow])
def test_stop_of_a_running_task_leaves_its_silent_container(
    silent_backend: MemoryBackend, workspace: Workspace, answer: Callable[[], bool]
) -> None:
    runner = runner_of(silent_backend, workspace, is_task_active=answer)
    stop_while_silent(silent_backend, runner)
    with pytest.raises(InterruptedAttemptError, match="the next attempt reattaches to its container"):
        run(runner)
    assert list(silent_backend.states) == ["new-0"]
    assert workspace.directory.exists()
    assert runner_of(silent_backend, workspace).reattach_or_start() == "new-0"


def test_stop_stores_the_position_in_the_log(silent_backend: MemoryBackend, workspace: Workspace) -> None:
    silent_backend.log_lines = [b"1 one\n", b"2 two\n"]
    state = MemoryState()
    runner = runner_of(silent_backend, workspace, state=state, is_task_active=lambda: True)
    stop_while_silent(silent_backend, runner)
    with pytest.raises(InterruptedAttemptError):
        run(runner)
    assert state[LOG_STATE_KEY] == {"container": "new-0", "seen": "2"}


def test_silent_container_is_left_at_the_end_of_following(silent_backend: MemoryBackend, workspace: Workspace) -> None:
    with pytest.raises(ContinuesError):
        run(runner_of(silent_backend, workspace, follow_until=datetime.now(tz=UTC) + timedelta(seconds=0.1)))
    assert list(silent_backend.states) == ["new-0"]


def test_time_limit_counts_from_the_creation_of_the_container(
    silent_backend: MemoryBackend, workspace: Workspace
) -> None:
    silent_backend.add("earlier", RUNNING)
    silent_backend.created_at -= timedelta(hours=2)
    with pytest.raises(ContainerError, match="stopped after its time limit of 60 minutes"):
        run(runner_of(silent_backend, workspace, time_limit=timedelta(hours=1)))
    assert silent_backend.states == {}


def test_time_limit_ignores_a_container_that_ended_long_ago(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.add("earlier", SUCCESS)
    backend.created_at -= timedelta(hours=2)
    runner = runner_of(backend, workspace, time_limit=timedelta(hours=1))
    run(runner)
    assert runner.ends_at > datetime.now(tz=UTC)
    assert backend.created == []


def test_time_limit_removes_the_container_and_names_the_setting(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.next_state = RUNNING
    backend.on_stream = lambda: threading.Event().wait(0.01)
    with pytest.raises(ContainerError, match=r"stopped after its time limit of 0\.005 minutes; raise `time_limit`"):
        run(runner_of(backend, workspace, time_limit=timedelta(minutes=0.005)))
    assert backend.states == {}


def test_container_removed_by_another_process_is_an_error(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.on_stream = backend.states.clear
    with pytest.raises(ContainerError, match="the container was removed by another process while it ran"):
        run(runner_of(backend, workspace))


def test_unreachable_engine_leaves_the_container(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.on_stream = backend.become_unreachable
    with pytest.raises(EngineUnavailableError, match="the next attempt will reattach"):
        run(runner_of(backend, workspace))
    assert list(backend.states) == ["new-0"]
    assert workspace.directory.exists()


class UnavailableState(MemoryState):
    """State of a task while Airflow's API does not answer."""

    def get(self, key: str, default: Any = None) -> Any:  # noqa: ARG002 - the dictionary's signature
        raise ConnectionError

    def set(self, key: str, value: Any) -> None:  # noqa: ARG002 - the dictionary's signature
        raise ConnectionError


def test_lost_supervisor_leaves_the_container(
    backend: MemoryBackend, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lose_supervisor() -> None:
        monkeypatch.setattr(os, "getppid", lambda: 1)
        assert backend.interrupted.wait(10)

    backend.next_state = RUNNING
    backend.on_stream = lose_supervisor
    with pytest.raises(SupervisorLostError, match="the next attempt will reattach"):
        run(runner_of(backend, workspace, state=UnavailableState()))
    assert list(backend.states) == ["new-0"]


def test_lost_supervisor_is_noticed_while_the_log_is_followed(
    backend: MemoryBackend, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numerai_pipeline.containers.log.CHECKPOINT_SECONDS", -1.0)
    runner = runner_of(backend, workspace, state=UnavailableState())
    backend.log_lines = [b"1 one\n"]
    monkeypatch.setattr(os, "getppid", lambda: 1)
    runner._raise_if_supervisor_lost = Mock(side_effect=[None, SupervisorLostError()])  # type: ignore[method-assign]
    with pytest.raises(SupervisorLostError):
        runner.follow(runner.reattach_or_start())
    assert list(backend.states) == ["new-0"]


def test_unavailable_state_store_does_not_stop_the_container(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.log_lines = [b"1 one\n"]
    lines: list[str] = []
    run(runner_of(backend, workspace, state=UnavailableState(), lines=lines))
    assert lines == ["one"]
    assert backend.states == {}


def test_closed_terminal_is_not_a_lost_supervisor(
    backend: MemoryBackend, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.on_stream = lambda: monkeypatch.setattr(os, "getppid", lambda: 1)
    run(runner_of(backend, workspace))
    assert backend.states == {}


def test_log_continues_after_the_checkpoint_of_an_earlier_attempt(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.add("earlier", RUNNING)
    backend.log_lines = [b"1 one\n", b"2 two\n", b"3 three\n"]
    state = MemoryState({LOG_STATE_KEY: {"container": "earlier", "seen": "2"}})
    lines: list[str] = []
    run(runner_of(backend, workspace, state=state, lines=lines))
    assert lines == ["three"]


def test_waiting_service_reports_the_reason_at_its_time_limit(backend: MemoryBackend, workspace: Workspace) -> None:
    backend.next_state = ContainerState("waiting", wait_reason="no suitable node")
    backend.on_stream = lambda: threading.Event().wait(0.01)
    with pytest.raises(ContainerError, match=r"no node of the swarm had room for it \(no suitable node\)"):
        run(runner_of(backend, workspace, time_limit=timedelta(minutes=0.005)))
