"""The end of a container: the error that its exit code stands for, and the end of its log as a file of the run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from numerai_pipeline.core.errors import BadInputError, PipelineError
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from numerai_pipeline.containers.backend import ContainerState

EXIT_NO_MODEL = 69
EXIT_NOT_RETRIED = {64: "bad parameters", 65: "bad data", 66: "an input is missing", EXIT_NO_MODEL: "no usable model"}
EXIT_MEANING = EXIT_NOT_RETRIED | {70: "a bug", 75: "try again later"}
EXIT_OUT_OF_MEMORY = 71  # reported by the container itself
EXIT_KILLED = 137
EXIT_STOPPED = (EXIT_KILLED, 143, 255)  # by SIGKILL, by SIGTERM, together with the engine
KEPT_LOG_LINES = 200
# the contract package's prefix of its last line; the task's error starts with the same information
_CONTRACT_PREFIX = re.compile(r"^FAILED \(\d+, [^)]*\): ")


class ContainerError(PipelineError):
    """A container failed, was stopped or was removed: another attempt may succeed."""


def error_from_exit(
    task: str, state: ContainerState, memory: int, last_lines: Sequence[str], unreachable_seconds: float
) -> PipelineError | None:
    """Return the error that the end of a container stands for; None if it ended without one.

    Parameters
    ----------
    task : str
        Its task.
    state : ContainerState
        Its state.
    memory : int
        Its memory limit, MiB.
    last_lines : sequence of str
        The end of its log.
    unreachable_seconds : float
        For how long the engine was unreachable while it was followed.

    Returns
    -------
    ContainerError, BadInputError or None
        A BadInputError if another attempt cannot help.
    """
    code = state.exit_code
    if code == 0:
        return None
    if state.oom_killed or code == EXIT_OUT_OF_MEMORY:
        return ContainerError(
            f"{task}: not enough memory (exit code {code}): its limit is {memory} MiB; raise `memory`"
            f" of task {task} in models.yaml, or run on fewer rows or features"
        )
    if unreachable_seconds and code in EXIT_STOPPED:
        return ContainerError(
            f"{task}: the Docker engine was unreachable for {unreachable_seconds:.0f} s, and its containers ended with"
            f" it (exit code {code}); the next attempt starts a new one. With `live-restore` the engine leaves them"
            " running"
        )
    if code == EXIT_KILLED and state.oom_killed is None:
        return ContainerError(
            f"{task}: killed (exit code {code}), most likely because it needed more memory than its limit of {memory}"
            f" MiB, which only its node reports: raise `memory` of task {task} in models.yaml, or run on fewer rows or"
            " features"
        )
    if code == EXIT_KILLED:
        return ContainerError(
            f"{task}: killed from outside (exit code {code}), by an operator or because the machine itself was out of"
            f" memory; its own limit of {memory} MiB was not exceeded"
        )
    last = next((line for line in reversed(last_lines) if line.strip()), "its log is empty")
    remedy = ""
    if code == EXIT_NO_MODEL:
        remedy = (
            f" Not retried, as the same inputs, seed and limits give the same: change the parameters of task {task} in"
            " models.yaml, or run with more AUTOML_MINUTES if it is a search"
        )
    message = f"{task}: {EXIT_MEANING.get(code, 'failed')} (exit code {code}): {_CONTRACT_PREFIX.sub('', last)}{remedy}"
    return BadInputError(message) if code in EXIT_NOT_RETRIED else ContainerError(message)


def write_failure_log(file: Path, error: BaseException, last_lines: Iterable[str]) -> None:
    """Write the error and the end of a failed container's log to a file of the run."""
    with atomic_path(file) as temporary:
        lines = (
            f"{type(error).__name__}: {error}",
            f"The last lines of its log, at most {KEPT_LOG_LINES}:",
            *last_lines,
        )
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
