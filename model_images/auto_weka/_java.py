"""Java programs as child processes: what they are started with, and how they are ended with all they have started."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

from numerai_contract.exits import ContractError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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


class ProgramError(Exception):
    """A program failed or took too long; the message says which and how."""


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


def run(words: Sequence[str], directory: Path, seconds: float) -> str:
    """Run a program to its end and return what it printed.

    Raises
    ------
    ProgramError
        When it fails, or is not done after so many seconds.
    """
    with started(words, directory) as process:
        try:
            said, _ = process.communicate(timeout=max(seconds, 0.1))
        except subprocess.TimeoutExpired:
            raise ProgramError(f"not done after {seconds:.0f} s") from None
        if process.returncode != 0:
            lines = [line for line in said.splitlines() if line.strip() and "Picked up JAVA" not in line]
            ending = f"killed by signal {-process.returncode}" if process.returncode < 0 else "failed"
            raise ProgramError(f"{ending}: {' / '.join(lines[:_QUOTED_LINES]) or 'without a word'}")
    return said


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
