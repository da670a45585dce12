"""Java programs as child processes: what they are started with, and how they are ended with all they have started."""

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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

PARTS = Path("/opt/auto_weka")
# one processor core each, so one collector thread; nothing written beside what is asked for; numbers with a full stop
_OPTIONS = (
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
    "-Duser.language=en",
    "-Duser.country=US",
    "--add-opens=java.base/java.lang=ALL-UNNAMED",
)
# when memory runs out it is a learner that has to go, not the process that has the results
_FIRST_TO_GO = "500"
_QUOTED_LINES = 3
# how far a program in the background steps back for others, from 0 to 19: a quarter of what a core would give it
_NICENESS = 5
# seconds between two looks at whether a program may go on
_BETWEEN_LOOKS = 0.2


class ProgramError(Exception):
    """A program failed or took too long; the message says which and how."""


class GivenUpError(Exception):
    """A program was ended for no fault of its own: what it was for is not wanted any more."""


@dataclass
class Allowance:
    """What programs may take that do a piece of work together, one after the other.

    Attributes
    ----------
    until : float
        When they must be done, by the monotonic clock.
    processor_seconds : float
        Of all cores and all of them together.
    in_background : bool
        Whether they step back for others.
    unwanted : callable
        Asked several times a second whether to give up.
    spent : float
        Processor seconds so far, to within a look at them.
    """

    until: float
    processor_seconds: float = math.inf
    in_background: bool = False
    unwanted: Callable[[], bool] = lambda: False
    spent: float = 0.0

    @property
    def seconds(self) -> float:
        """What is left of the time, more than nothing."""
        return max(self.until - time.monotonic(), 0.1)


def command(classpath: Sequence[Path], heap: int, program: str, *arguments: str) -> list[str]:
    """Put together the command that runs a Java class; `heap` is in MiB."""
    return ["java", f"-Xmx{heap}m", "-cp", os.pathsep.join(map(str, classpath)), program, *arguments]


@contextlib.contextmanager
def started(words: Sequence[str], directory: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program in a process group of its own; when the block is left, the whole group is ended.

    Yields
    ------
    subprocess.Popen
        Its standard output and error are one stream of text.
    """
    homes = [f"-Djava.io.tmpdir={directory}", f"-Duser.home={directory}"]
    variables = {
        # every Java process reads this, also those that this one starts
        "JAVA_TOOL_OPTIONS": " ".join([*_OPTIONS, *homes]),
        "WEKA_HOME": str(directory / "wekafiles"),
    }
    process = subprocess.Popen(
        words,
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
            Path(f"/proc/{process.pid}/oom_score_adj").write_text(_FIRST_TO_GO, encoding="ascii")
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def run(words: Sequence[str], directory: Path, allowance: Allowance) -> str:
    """Run a program to its end and return what it printed.

    Raises
    ------
    ProgramError
        When it fails, or takes more than it may.
    GivenUpError
        When it is not wanted any more.
    """
    if allowance.in_background:
        words = ["nice", f"--adjustment={_NICENESS}", *words]
    with started(words, directory) as process:
        said = _heard_out(process, allowance)
        if process.returncode != 0:
            lines = [line for line in said.splitlines() if line.strip() and "Picked up JAVA" not in line]
            ending = f"killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
            raise ProgramError(f"{ending}: {' / '.join(lines[:_QUOTED_LINES]) or 'without a word'}")
    return said


def _heard_out(process: subprocess.Popen[str], allowance: Allowance) -> str:
    seconds, before = allowance.seconds, allowance.spent
    while True:
        try:
            said, _ = process.communicate(timeout=min(_BETWEEN_LOOKS, allowance.seconds))
        except subprocess.TimeoutExpired:
            allowance.spent = before + _processor_seconds(process.pid)
        else:
            return said
        if allowance.unwanted():
            raise GivenUpError
        if time.monotonic() >= allowance.until:
            raise ProgramError(f"not done after {seconds:.0f} s")
        if allowance.spent > allowance.processor_seconds:
            raise ProgramError(f"not done after {allowance.processor_seconds:.0f} s of the processor's time")


def _processor_seconds(process: int) -> float:
    """Look up the time that the threads of a process have run; proc(5) has the fields."""
    fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def versions() -> dict[str, str]:
    """Look up what the image holds: Auto-WEKA, WEKA, Java."""
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
