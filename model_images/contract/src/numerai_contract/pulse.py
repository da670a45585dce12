"""The line from an operation to the process that watches over it (see `supervisor`).

The operation says what it is doing, which temporary files it has begun, and how it failed; the supervisor repeats the
first when the operation has been silent for long, and acts on the others when the operation is gone. Without a
supervisor (an operation called from a test) the messages go nowhere.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

_line: list[int] = []


def connect(descriptor: int) -> None:
    """Send all later messages of this process to a file descriptor open for writing."""
    _line[:] = [descriptor]


def announce_work(text: str) -> None:
    """Say what the operation is doing from now on."""
    _send(doing=text)


def announce_sign() -> None:
    """Say that the operation has just printed something, so that nobody needs to speak for it."""
    _send(spoke=True)


def announce_part(part: Path) -> None:
    """Say that a temporary file is about to be made, so that it can be removed should the operation be killed."""
    _send(part=str(part))


def forget_part(part: Path) -> None:
    """Say that a temporary file is gone."""
    _send(gone=str(part))


def announce_failure(exit_code: int, message: str) -> None:
    """Say how the operation failed: the supervisor prints it, so that it is the last line whatever libraries print."""
    _send(failed=exit_code, message=message)


def _send(**message: Any) -> None:
    if _line:
        # one write a line: the kernel keeps it whole up to 4 KiB, also among threads
        with contextlib.suppress(BrokenPipeError):
            os.write(_line[0], (json.dumps(message) + "\n").encode())
