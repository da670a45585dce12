"""The launcher's errors: one with a message, details and an exit code, and one for a stop by the user."""

from __future__ import annotations

# as in sysexits.h
EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_BUSY = 75
EXIT_STOPPED = 130


class LauncherError(Exception):
    """An error that is reported to the user: one sentence, then details such as its remedy and the end of a log."""

    def __init__(self, message: str, *details: str, exit_code: int = EXIT_FAILED, step: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.exit_code = exit_code
        self.step = step


class UsageError(LauncherError):
    """An option has a wrong name or a wrong value."""

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message, *details, exit_code=EXIT_USAGE, step="Wrong option")


class StoppedError(BaseException):
    """The user stopped the command (Ctrl-C, SIGTERM, a closed terminal); no handler of ordinary errors catches it."""
