"""Java programs as child processes: their options, their limits, and their end together with their child processes."""

from __future__ import annotations

import contextlib
import json
import math
import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_contract.exits import ContractError
from numerai_contract.search import POLL_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PARTS = Path("/opt/auto_weka")
# one core each, so one collector thread; no additional files; numbers with a decimal point
_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Duser.language=en",
    "-Duser.country=US",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)
# when memory runs out, the system must kill a learner, not the process with the results
_OOM_SCORE = "500"
_MAX_QUOTED_LINES = 3
# niceness of a program in the background, from 0 to 19: about a quarter of a contended core
_NICENESS = 5


class ProgramError(Exception):
    """A program failed or took too long; the message has the details."""


class CancelledError(Exception):
    """A program was ended because its result is not needed any more."""


@dataclass
class CpuBudget:
    """The limits of consecutive programs that do one piece of work.

    Attributes
    ----------
    deadline : float
        When they must end, by the monotonic clock.
    cpu_seconds : float
        Processor seconds of all cores and all programs together.
    in_background : bool
        Whether they run at a lower priority.
    is_cancelled : callable
        Called several times a second: whether to end them.
    spent : float
        Processor seconds so far, approximately.
    """

    deadline: float
    cpu_seconds: float = math.inf
    in_background: bool = False
    is_cancelled: Callable[[], bool] = lambda: False
    spent: float = 0.0

    @property
    def seconds(self) -> float:
        """The remaining time, more than zero."""
        return max(self.deadline - time.monotonic(), 0.1)


def command(classpath: Sequence[Path], heap: int, program: str, *arguments: str) -> list[str]:
    """Return the command that runs a Java class; `heap` is in MiB."""
    return ["java", f"-Xmx{heap}m", "-cp", os.pathsep.join(map(str, classpath)), program, *arguments]


@contextlib.contextmanager
def started(command_line: Sequence[str], directory: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a new process group, which is killed at the end of the block.

    Yields
    ------
    subprocess.Popen
        Its standard output and error are one stream of text.
    """
    homes = [f"-Djava.io.tmpdir={directory}", f"-Duser.home={directory}"]
    variables = {
        # every Java process reads this, including child processes
        "JAVA_TOOL_OPTIONS": " ".join([*_OPTIONS, *homes]),
        "WEKA_HOME": str(directory / "wekafiles"),
    }
    process = subprocess.Popen(
        command_line,
        cwd=directory,
        env={**os.environ, **variables, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        process_group=0,
    )
    try:
        with contextlib.suppress(OSError):
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(_OOM_SCORE, encoding="ascii")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run(command_line: Sequence[str], directory: Path, budget: CpuBudget) -> str:
    """Run a program to its end and return its output.

    Raises
    ------
    ProgramError
        When it fails, or exceeds its budget.
    CancelledError
        When it is cancelled.
    """
    if budget.in_background:
        command_line = ["nice", f"--adjustment={_NICENESS}", *command_line]
    with started(command_line, directory) as process:
        output = _read_until_exit(process, budget)
        if process.returncode != 0:
            lines = [line for line in output.splitlines() if line.strip() and "Picked up JAVA" not in line]
            ending = f"killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
            raise ProgramError(f"{ending}: {' / '.join(lines[:_MAX_QUOTED_LINES]) or 'no error message'}")
    return output


def _read_until_exit(process: subprocess.Popen[str], budget: CpuBudget) -> str:
    seconds, before = budget.seconds, budget.spent
    while True:
        try:
            output, _ = process.communicate(timeout=min(POLL_SECONDS, budget.seconds))
        except subprocess.TimeoutExpired:
            budget.spent = before + _cpu_seconds(process.pid)
        else:
            return output
        if budget.is_cancelled():
            raise CancelledError
        if time.monotonic() >= budget.deadline:
            raise ProgramError(f"not finished after {seconds:.0f} s")
        if budget.spent > budget.cpu_seconds:
            raise ProgramError(f"not finished after {budget.cpu_seconds:.0f} s of processor time")


def _cpu_seconds(process: int) -> float:
    """Return the processor time of a process; proc(5) documents the fields."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """Return the versions of Auto-WEKA, WEKA and Java in the image."""
    known: dict[str, str] = json.loads((PARTS / "versions.json").read_text(encoding="utf-8"))
    java = shutil.which("java")
    if java is None:
        raise ContractError("this image has no java: it was not built from its Dockerfile.")
    release = Path(java).resolve().parents[1] / "release"
    with contextlib.suppress(OSError):
        for line in release.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition("=")
            if name == "JAVA_VERSION":
                known["java"] = value.strip('"')
    return known
