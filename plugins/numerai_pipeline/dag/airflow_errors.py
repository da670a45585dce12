"""Translates the pipeline's errors to Airflow's: fail at once, or retry."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from numerai_pipeline.core.errors import BadInputError, PipelineError
from numerai_pipeline.storage.disk import classify_disk_error

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def translate_errors() -> Iterator[None]:
    """Translate the pipeline's errors; a decorator, ``@translate_errors()``, and a context manager.

    Bad input fails the task at once, every other error of the pipeline is retried. An ``OSError`` of a full, read-only
    or forbidden data volume is classified first, so that its message names the remedy. A retry policy of the task SDK
    (``ExceptionRetryPolicy``) could decide about retries as well, but cannot change the message of an exception.
    """
    try:
        yield
    except PipelineError as error:
        raise _to_airflow(error) from error
    except OSError as error:
        known = classify_disk_error(error)
        if known is None:
            raise
        raise _to_airflow(known) from error


def _to_airflow(error: PipelineError) -> AirflowException:
    kind = AirflowFailException if isinstance(error, BadInputError) else AirflowException
    return kind(str(error))
