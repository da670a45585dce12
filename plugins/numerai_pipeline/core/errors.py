"""Errors of the pipeline, one class for each reaction.

::

    PipelineError              the task fails and is retried
    ├ NetworkError             a server is unreachable, busy, or broke the connection
    ├ ProtocolError            a server's answer is not Numerai's protocol
    ├ DiskFullError            the data volume has no space left
    ├ SubmissionError          an upload was refused, or not confirmed in time
    └ BadInputError            the task fails at once: another attempt cannot help
      ├ NotFoundError          a requested round, dataset, feature set or target does not exist
      ├ RoundClosedError       the requested round is closed
      ├ CredentialsError       the Numerai keys are missing or were refused
      └ VolumeError            the data volume is read-only or belongs to another user

A message names the file, the column or setting, the value, and the remedy.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Any error that the pipeline reports."""


class BadInputError(PipelineError):
    """A setting, a parameter or a file is wrong: another attempt without a change cannot help."""


class NotFoundError(BadInputError):
    """A requested round, dataset, feature set or target does not exist."""


class RoundClosedError(BadInputError):
    """The requested round is closed: its data is no longer served, or submissions no longer count for it."""


class CredentialsError(BadInputError):
    """The Numerai keys are missing or were refused."""


class NetworkError(PipelineError):
    """A server is unreachable, busy, or broke the connection: another attempt can succeed."""


class ProtocolError(PipelineError):
    """A server's answer is not Numerai's protocol: another attempt can succeed; if it persists, report it."""


class DiskFullError(PipelineError):
    """The data volume has no space left: another attempt can succeed once there is space."""


class VolumeError(BadInputError):
    """The data volume cannot be read or written: it is mounted read-only, or belongs to another user."""


class SubmissionError(PipelineError):
    """An upload was refused, or not confirmed in time: another attempt can succeed."""
