"""The pipeline's errors in Airflow's words: fail at once, or try again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from numerai_pipeline.disk import classify_disk_error
from numerai_pipeline.errors import BadInputError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def in_airflow_words() -> Iterator[None]:
    """Turn bad input into a failure without retries, and every other error of the pipeline into one with them.

    What the operating system says of a full, read-only or forbidden data volume counts as the pipeline's, wherever it
    arises.
    """
    try:
        yield
    except PipelineError as error:
        raise _in_airflow_words(error) from error
    except OSError as error:
        known = classify_disk_error(error)
        if known is None:
            raise
        raise _in_airflow_words(known) from error


def _in_airflow_words(error: PipelineError) -> AirflowException:
    kind = AirflowFailException if isinstance(error, BadInputError) else AirflowException
    return kind(str(error))
