"""What a container's end means: its exit code in words that say what to do, and its last lines kept with the run."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from numerai_pipeline.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

EXIT_NOT_RETRIED = {64: "bad parameters", 65: "bad data", 66: "an input is missing"}
EXIT_MEANING = EXIT_NOT_RETRIED | {70: "a bug", 75: "try again later"}
EXIT_OUT_OF_MEMORY = 71  # the container's own word for it
EXIT_KILLED = 137
EXIT_STOPPED = (EXIT_KILLED, 143, 255)  # by SIGKILL, by SIGTERM, together with the engine
KEPT_LOG_LINES = 200
# How the contract package begins its last line; the task says the same in its own words.
_OWN_VERDICT = re.compile(r"^FAILED \(\d+, [^)]*\): ")


def verdict(
    task: str, state: dict[str, Any], memory: int, last_lines: Sequence[str], silent_seconds: float
) -> AirflowException | None:
    """Say why a container failed; None when it did not.

    Parameters
    ----------
    task : str
        Its task.
    state : dict
        Its state, as ``docker inspect`` shows it; ``OOMKilled`` is None where nobody can tell.
    memory : int
        Its limit, MiB.
    last_lines : sequence of str
        The end of its log.
    silent_seconds : float
        For how long the engine did not answer while it was followed.

    Returns
    -------
    AirflowException or None
        An AirflowFailException where trying again cannot help.
    """
    code = state["ExitCode"]
    if code == 0:
        return None
    if state["OOMKilled"] or code == EXIT_OUT_OF_MEMORY:
        return AirflowException(
            f"{task}: not enough memory (exit code {code}): its limit is {memory} MiB; raise `memory`"
            f" of task {task} in models.yaml, or run on fewer rows or features"
        )
    if silent_seconds and code in EXIT_STOPPED:
        return AirflowException(
            f"{task}: the Docker engine stopped answering, for {silent_seconds:.0f} s, and its containers ended with it"
            f" (exit code {code}); the next try starts anew. With `live-restore` the engine leaves them running"
        )
    if code == EXIT_KILLED and state["OOMKilled"] is None:
        return AirflowException(
            f"{task}: killed (exit code {code}), most likely because it needed more memory than its limit of {memory}"
            f" MiB, which its node alone knows: raise `memory` of task {task} in models.yaml, or run on fewer rows or"
            " features"
        )
    if code == EXIT_KILLED:
        return AirflowException(
            f"{task}: killed from outside (exit code {code}), by somebody or because the machine itself was out of"
            f" memory; its own limit of {memory} MiB was not exceeded"
        )
    last = next((line for line in reversed(last_lines) if line.strip()), "it said nothing")
    message = f"{task}: {EXIT_MEANING.get(code, 'failed')} (exit code {code}): {_OWN_VERDICT.sub('', last)}"
    return AirflowFailException(message) if code in EXIT_NOT_RETRIED else AirflowException(message)


def write_failure_log(file: Path, why: BaseException, last_lines: Iterable[str]) -> None:
    """Keep the end of a failed container's log, and why it failed, with the run."""
    with atomic_path(file) as temporary:
        lines = (f"{type(why).__name__}: {why}", f"The last lines of its log, at most {KEPT_LOG_LINES}:", *last_lines)
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
