"""How an operation ends: the contract's exit codes, and the errors that lead to them.

The codes follow ``sysexits.h``. 64 to 66 say that another try would fail the same way; the others may be retried.
"""

from __future__ import annotations

import errno
from enum import IntEnum


class Exit(IntEnum):
    """The exit codes of a model's container."""

    DONE = 0
    BAD_PARAMETERS = 64
    BAD_DATA = 65
    INPUT_MISSING = 66
    BUG = 70
    NOT_ENOUGH_MEMORY = 71
    TRY_AGAIN = 75

    @property
    def meaning(self) -> str:
        """What the code means, in the words the last line of a failed run uses."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.DONE: "done",
    Exit.BAD_PARAMETERS: "bad parameters",
    Exit.BAD_DATA: "bad data",
    Exit.INPUT_MISSING: "input missing",
    Exit.BUG: "the operation failed",
    Exit.NOT_ENOUGH_MEMORY: "not enough memory",
    Exit.TRY_AGAIN: "try again later",
}


class ContractError(Exception):
    """An ending that is understood: its message alone tells the reader what to do."""

    exit = Exit.BUG


class BadParameterError(ContractError):
    """A parameter is absent, malformed or out of bounds."""

    exit = Exit.BAD_PARAMETERS


class BadDataError(ContractError):
    """A table does not keep the contract."""

    exit = Exit.BAD_DATA


class MissingInputError(ContractError):
    """A file the operation reads is not there, or may not be read."""

    exit = Exit.INPUT_MISSING


class ModelFailureError(ContractError):
    """The model ran and what came out is worthless: not a number, constant, or outside [0, 1]."""


class NotEnoughMemoryError(ContractError):
    """The operation needs more memory than its container has."""

    exit = Exit.NOT_ENOUGH_MEMORY


class TryAgainError(ContractError):
    """Something outside the operation is in the way and may pass: a full disk, a stop request."""

    exit = Exit.TRY_AGAIN


# what the machine, and not the operation, is to blame for
_PASSING = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk could not be read or written",
    errno.ESTALE: "the network file system lost the file",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
}
# how native libraries, which know no MemoryError, put it
_MEMORY_WORDS = ("bad_alloc", "cannot allocate memory", "unable to allocate", "out of memory")


def passing_trouble(error: BaseException) -> str | None:
    """Say what is in the way when it is something that may pass, such as a full disk; None otherwise."""
    return _PASSING.get(error.errno) if isinstance(error, OSError) and error.errno is not None else None


def understood(error: BaseException, memory_limit: int | None = None) -> ContractError | None:
    """Translate an exception into an ending that is understood.

    Parameters
    ----------
    error
        Whatever an operation let through.
    memory_limit
        The container's memory in MiB, for the message.

    Returns
    -------
    ContractError or None
        None means a bug: nobody foresaw this one, and its traceback is worth showing.
    """
    if isinstance(error, ContractError):
        return error
    if isinstance(error, MemoryError) or any(words in str(error).lower() for words in _MEMORY_WORDS):
        return NotEnoughMemoryError(f"{memory_advice(memory_limit)} ({str(error) or type(error).__name__})")
    trouble = passing_trouble(error)
    if trouble is not None:
        where = getattr(error, "filename", None) or "a file without a name"
        return TryAgainError(f"{where}: {trouble}. Make room or repair it, then run the task again.")
    return None


def memory_advice(memory_limit: int | None) -> str:
    """Say that memory ran out and what helps; `memory_limit` is in MiB."""
    had = "" if memory_limit is None else f" of {memory_limit:,} MiB"
    return f"the memory{had} was not enough. Give the model more memory in models.yaml, or fewer rows or features"
