"""The exit codes of an operation, and the errors that lead to them.

The codes follow ``sysexits.h``. After 64 to 69 another attempt with the same inputs, seed and limits would fail the
same way; the others may be retried.
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
    NO_MODEL = 69
    BUG = 70
    NOT_ENOUGH_MEMORY = 71
    TRY_AGAIN = 75

    @property
    def meaning(self) -> str:
        """The meaning of the code, as the last line of a failed run shows it."""
        return _MEANINGS[self]


_MEANINGS = {
    Exit.DONE: "done",
    Exit.BAD_PARAMETERS: "bad parameters",
    Exit.BAD_DATA: "bad data",
    Exit.INPUT_MISSING: "input missing",
    Exit.NO_MODEL: "no usable model",
    Exit.BUG: "the operation failed",
    Exit.NOT_ENOUGH_MEMORY: "not enough memory",
    Exit.TRY_AGAIN: "try again later",
}


class ContractError(Exception):
    """An expected failure: its message describes the cause and the remedy, without a traceback."""

    exit = Exit.BUG


class BadParameterError(ContractError):
    """A parameter is absent, malformed or out of bounds."""

    exit = Exit.BAD_PARAMETERS


class BadDataError(ContractError):
    """A table violates the contract."""

    exit = Exit.BAD_DATA


class MissingInputError(ContractError):
    """A file that the operation reads does not exist, or may not be read."""

    exit = Exit.INPUT_MISSING


class ModelFailureError(ContractError):
    """No usable model: a search found none, or its predictions are constant, not a number, or outside [0, 1]."""

    exit = Exit.NO_MODEL


class NotEnoughMemoryError(ContractError):
    """The operation needs more memory than its container has."""

    exit = Exit.NOT_ENOUGH_MEMORY


class TryAgainError(ContractError):
    """A transient condition outside the operation: a full disk, a stop request."""

    exit = Exit.TRY_AGAIN


# conditions of the machine, not of the operation
_TRANSIENT = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EIO: "the disk could not be read or written",
    errno.ESTALE: "the network file system lost the file",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open on this machine",
}
# the messages of native libraries, which raise no MemoryError
_MEMORY_MESSAGES = ("bad_alloc", "cannot allocate memory", "unable to allocate", "out of memory")


def transient_os_error(error: BaseException) -> str | None:
    """Describe a transient condition of the machine, such as a full disk; None for any other error."""
    return _TRANSIENT.get(error.errno) if isinstance(error, OSError) and error.errno is not None else None


def to_contract_error(error: BaseException, memory_limit: int | None = None) -> ContractError | None:
    """Convert an exception to a `ContractError`, or None if it is unexpected.

    Parameters
    ----------
    error
        Any exception that an operation raised.
    memory_limit
        The container's memory in MiB, for the message.

    Returns
    -------
    ContractError or None
        None means a bug: its traceback should be shown.
    """
    if isinstance(error, ContractError):
        return error
    if isinstance(error, MemoryError) or any(message in str(error).lower() for message in _MEMORY_MESSAGES):
        return NotEnoughMemoryError(f"{memory_advice(memory_limit)} ({str(error) or type(error).__name__})")
    condition = transient_os_error(error)
    if condition is not None:
        where = getattr(error, "filename", None) or "a file without a name"
        return TryAgainError(f"{where}: {condition}. Make room or repair it, then run the task again.")
    return None


def memory_advice(memory_limit: int | None) -> str:
    """Describe a lack of memory and its remedy; `memory_limit` is in MiB."""
    limit = "" if memory_limit is None else f" of {memory_limit:,} MiB"
    return f"the memory{limit} was not enough. Give the model more memory in models.yaml, or fewer rows or features"
