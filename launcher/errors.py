"""How the launcher fails: one error that carries what to tell the user and the exit code, and one for being stopped."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_BUSY = 75
EXIT_STOPPED = 130


class LauncherError(Exception):
    """Something the user must know: what was wrong, and what to do about it.

    Parameters
    ----------
    message
        One sentence for the line that failed.
    details
        Further lines: what to do, the end of a log, where the whole log is.
    exit_code
        What the command exits with, after sysexits.h.
    """

    def __init__(self, message: str, *details: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.exit_code = exit_code
        self.step = ""


class UsageError(LauncherError):
    """A knob has a wrong name or a wrong value."""

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message, *details, exit_code=EXIT_USAGE)
        self.step = "Wrong knob"


class StoppedError(BaseException):
    """The user stopped the command (Ctrl-C, SIGTERM, a closed terminal).

    A BaseException like KeyboardInterrupt, so that no handler of ordinary errors swallows it.
    """
