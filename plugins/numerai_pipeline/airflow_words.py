"""The pipeline's errors in Airflow's words: fail at once, or try again."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from numerai_pipeline.errors import BadInputError, PipelineError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def in_airflow_words() -> Iterator[None]:
    """Turn bad input into a failure without retries, and every other error of the pipeline into one with them."""
    try:
        yield
    except BadInputError as error:
        raise AirflowFailException(str(error)) from error
    except PipelineError as error:
        raise AirflowException(str(error)) from error
