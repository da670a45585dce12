"""The interface between the runner and the platforms that run containers: one Docker engine, or a Docker Swarm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime, timedelta
    from pathlib import Path

    from docker import APIClient
    from docker.types import Mount

    from numerai_pipeline.containers.labels import ContainerLabels
    from numerai_pipeline.containers.log import ContainerLog
    from numerai_pipeline.containers.workspace import Workspace
    from numerai_pipeline.core.errors import PipelineError

Connect = Callable[[], "APIClient"]
"""Returns a connection to the engine, the same one at each call once it exists."""


@dataclass(frozen=True)
class ContainerRequest:
    """The container of one attempt of a task.

    Attributes
    ----------
    image : str
        Full name of the image.
    environment : mapping
        The contract's variables.
    mounts : sequence of Mount
        Its bind mounts; their sources are paths of this process on the data volume.
    workspace : Workspace
        The directory that it has as ``/data``.
    labels : ContainerLabels
        Its labels.
    kept_keys : frozenset of str
        Keys of results that other containers of the same task instance may be making.
    user : str
        Its user and group id, ``uid:gid``.
    failure_log : Path
        The file for the end of its log if it fails.
    time_limit : timedelta
        Its longest duration, from its creation; then it is removed.
    memory : int
        Hard memory limit, MiB, without swap.
    cores : int
        Hard limit of processor cores.
    gpus : int or "all"
        Number of GPUs, or all of its machine.
    """

    image: str
    environment: Mapping[str, str]
    mounts: Sequence[Mount]
    workspace: Workspace
    labels: ContainerLabels
    user: str
    failure_log: Path
    time_limit: timedelta
    memory: int
    cores: int
    gpus: int | Literal["all"] = 0
    kept_keys: frozenset[str] = frozenset()

    @property
    def task(self) -> str:
        """Id of the task."""
        return self.labels.task


@dataclass(frozen=True)
class ContainerState:
    """The state of a container.

    Attributes
    ----------
    phase : {"created", "waiting", "running", "removing", "ended"}
        ``waiting``: for a node of a swarm with enough free resources.
    exit_code : int
        Exit code, once it has ended.
    oom_killed : bool or None
        Whether the kernel killed it at its memory limit; None if only another node of the swarm has this information.
    wait_reason : str
        Why it waits, in the swarm's words.
    failure : str
        Why the swarm, and not the container, failed; empty otherwise.
    node : str
        Name of its node in a swarm.
    """

    phase: Literal["created", "waiting", "running", "removing", "ended"]
    exit_code: int = 0
    oom_killed: bool | None = False
    wait_reason: str = ""
    failure: str = ""
    node: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it runs or is about to."""
        return self.phase in ("waiting", "running")

    @property
    def is_successful(self) -> bool:
        """Whether it ended without an error."""
        return self.phase == "ended" and self.exit_code == 0 and not self.failure


@dataclass(frozen=True)
class FoundContainer:
    """A container as the platform lists it.

    Attributes
    ----------
    id : str
        Its id.
    labels : ContainerLabels
        Its labels.
    status : str
        Its status in the platform's words.
    has_ended : bool
        Whether it has ended.
    """

    id: str
    labels: ContainerLabels
    status: str
    has_ended: bool


class Backend(Protocol):
    """A platform that runs containers. Every method but the last two raises while the engine is unreachable."""

    @property
    def kind(self) -> str:
        """The platform's term for a container: ``container`` or ``service``."""

    def prepare(self, request: ContainerRequest) -> None:
        """Check, and if possible set up, the requirements of a container: its image, or the swarm and its network.

        Raises
        ------
        BadInputError
            When a requirement is missing.
        """

    def create(self, request: ContainerRequest) -> str:
        """Create a container and return its id."""

    def start(self, container_id: str, request: ContainerRequest) -> None:
        """Start a created container, if the platform did not do so already.

        Raises
        ------
        BadInputError
            When the engine has no GPU for it.
        """

    def find(self, filters: Sequence[str]) -> list[FoundContainer]:
        """List the containers with all of these labels, ``name=value`` each."""

    def inspect(self, container_id: str) -> ContainerState:
        """Return the state of a container.

        Raises
        ------
        docker.errors.NotFound
            When it does not exist.
        """

    def stream_log(self, container_id: str, log: ContainerLog, *, until_end: bool) -> None:
        """Write new lines to the log; with ``until_end`` until the container ends, or for some time at most."""

    def interrupt(self) -> None:
        """End :meth:`stream_log` of another thread soon, if it follows a log; raise nothing."""

    def request_removal(self, container_id: str) -> None:
        """Remove a container, running or not, without waiting for it; do nothing if it does not exist."""

    def remove_and_wait(self, container_id: str) -> None:
        """Remove a container and return when no process of it runs."""

    def error_from_exit(
        self, request: ContainerRequest, state: ContainerState, last_lines: Sequence[str], unreachable_seconds: float
    ) -> PipelineError | None:
        """Return the error that the end of a container stands for; None if it ended without one."""

    def last_change(self, container_id: str) -> datetime | None:
        """Return when a container ended or, if it still runs, was created; None if it does not exist."""

    def written_bytes(self, found: FoundContainer) -> int:
        """Return the bytes that a container wrote outside of its mounts, as far as the platform reports them."""
