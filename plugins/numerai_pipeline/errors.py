"""The few ways in which the pipeline fails, told apart by what should happen next.

An error's message names what was wrong, where, and what to do about it. ``steps.py`` and ``model_operator.py`` turn
these into Airflow's own words: a :class:`BadInputError` fails the task at once, everything else is tried again.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Anything the pipeline itself reports."""


class BadInputError(PipelineError):
    """A setting, a parameter or a file is wrong: trying again without changing it cannot help."""


class NotFoundError(BadInputError):
    """A round, dataset, feature set or target that was asked for does not exist."""


class RoundClosedError(BadInputError):
    """The round that was asked for no longer takes part: its data is not served any more."""


class CredentialsError(BadInputError):
    """The Numerai keys are missing or were refused."""


class NetworkError(PipelineError):
    """A server could not be reached, was busy, or broke off: worth trying again."""


class ProtocolError(PipelineError):
    """A server answered something that is not Numerai's protocol: worth trying again, then worth reporting."""


class DiskFullError(PipelineError):
    """The data volume has no space left: worth trying again once there is room."""


class VolumeError(BadInputError):
    """The data volume may not be read or written: it is mounted read-only, or belongs to somebody else."""


class SubmissionError(PipelineError):
    """An upload was refused, or not confirmed in time: worth trying again, for the last valid one counts."""
