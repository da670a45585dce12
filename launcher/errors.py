"""The launcher's errors: one with a message, details and an exit code, and one for a stop by the user."""

from __future__ import annotations

EXIT_FAILED = 1
EXIT_USAGE = 64
EXIT_UNAVAILABLE = 69
EXIT_BUSY = 75
EXIT_STOPPED = 130


class LauncherError(Exception):
    """An error that is reported to the user, with its remedy.

    Parameters
    ----------
    message
        One sentence for the line that failed.
    details
        Further lines: the remedy, the end of a log, the path of the log.
    exit_code
        The command's exit code, as in sysexits.h.
    """

    def __init__(self, message: str, *details: str, exit_code: int = EXIT_FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.exit_code = exit_code
        self.step = ""


class UsageError(LauncherError):
    """An option has a wrong name or a wrong value."""

    def __init__(self, message: str, *details: str) -> None:
        super().__init__(message, *details, exit_code=EXIT_USAGE)
        self.step = "Wrong option"


class StoppedError(BaseException):
    """The user stopped the command (Ctrl-C, SIGTERM, a closed terminal).

    A BaseException like KeyboardInterrupt, so that no handler of ordinary errors swallows it.
    """
