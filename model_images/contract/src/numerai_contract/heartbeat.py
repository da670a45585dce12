"""Messages from an operation to its supervisor (see `supervisor`).

The operation reports its current step, its temporary files and its failure. The supervisor prints the step when the
operation has printed nothing for a while, and uses the others when the operation has ended. Without a supervisor (an
operation called from a test) the messages are dropped.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_descriptors: list[int] = []


def connect(descriptor: int) -> None:
    """Send all later messages of this process to a file descriptor open for writing."""
    _descriptors[:] = [descriptor]


def report_step(description: str) -> None:
    """Report the step that the operation begins now."""
    _send(step=description)


def report_activity() -> None:
    """Report that the operation has just printed a line, so that the supervisor does not print one."""
    _send(active=True)


def report_temporary_file(path: Path) -> None:
    """Report a temporary file before it is created, so that the supervisor removes it if the operation is killed."""
    _send(temporary=str(path))


def report_file_removed(path: Path) -> None:
    """Report that a temporary file no longer exists."""
    _send(removed=str(path))


def report_failure(exit_code: int, message: str) -> None:
    """Report the failure. The supervisor prints it, so that it is the last line whatever libraries print."""
    _send(failed=exit_code, message=message)


def _send(**message: Any) -> None:
    if _descriptors:
        # one write a line: the kernel keeps it whole up to 4 KiB, also among threads
        with contextlib.suppress(BrokenPipeError):
            os.write(_descriptors[0], (json.dumps(message) + "\n").encode())
