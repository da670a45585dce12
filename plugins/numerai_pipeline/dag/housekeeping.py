"""The tasks of the DAG ``numerai_housekeeping``: they query Docker and Airflow before they remove anything."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.containers.engine import NoConnectionError
from numerai_pipeline.containers.housekeeping import (
    Cleanup,
    remove_containers,
    remove_downloads,
    remove_results,
    remove_runs,
)
from numerai_pipeline.containers.platforms import cleanup_backends
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.core.settings import LEAST_DAYS, Settings, load_settings
from numerai_pipeline.dag.airflow_errors import translate_errors
from numerai_pipeline.dag.deployment import deployment_id
from numerai_pipeline.dag.docker_connection import engine_client
from numerai_pipeline.dag.orphan_cleanup import is_run_active, liveness_check
from numerai_pipeline.storage.layout import DataLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow.sdk.types import RuntimeTaskInstanceProtocol

    from numerai_pipeline.containers.backend import Backend


def form_fields(settings: Settings) -> dict[str, dict[str, Any]]:
    """Describe the parameters of a clean-up as keyword arguments of ``airflow.sdk.Param``."""
    return {
        "dry_run": {
            "default": False,
            "type": "boolean",
            "title": "Dry run",
            "description_md": "Log the removals without removing anything.",
        },
        "keep_rounds": {
            "default": settings.keep_rounds,
            "type": "integer",
            "minimum": 1,
            "title": "Keep rounds",
            "description_md": "Number of last rounds of each source whose files are kept, at any age.",
        },
        "keep_days": {
            "default": settings.keep_days,
            "type": "integer",
            "minimum": LEAST_DAYS,
            "title": "Keep days",
            "description_md": "Files of other rounds, results and downloads are removed when unused for so many days.",
        },
    }


@translate_errors()
def clean_containers(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove this deployment's containers without an active task; return the removed objects."""
    settings = load_settings()
    cleanup = _cleanup(params)
    with _docker_engine(settings) as backends:
        for backend in backends:
            remove_containers(
                cleanup,
                backend,
                installation_id(settings.data_dir),
                deployment_id(settings.data_dir),
                keep_days=settings.keep_container_days,
                is_active=liveness_check(ti, settings.data_dir),
            )
        return cleanup.finish()


@translate_errors()
def clean_runs(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove the directories of old runs; return the removed objects."""
    return _clean_by_runs(params, ti, remove_runs)


@translate_errors()
def clean_results(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove results and datasets that no run uses; return the removed objects."""
    return _clean_by_runs(params, ti, remove_results)


def _clean_by_runs(
    params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol, remove: Callable[..., None]
) -> dict[str, Any]:
    cleanup = _cleanup(params)
    remove(
        cleanup,
        DataLayout(load_settings().data_dir),
        keep_rounds=params["keep_rounds"],
        keep_days=params["keep_days"],
        is_active=lambda run: is_run_active(ti, run.dag, run.run),
    )
    return cleanup.finish()


@translate_errors()
def clean_downloads(params: Mapping[str, Any]) -> dict[str, Any]:
    """Remove downloads that no run requested recently; return the removed objects."""
    cleanup = _cleanup(params)
    remove_downloads(
        cleanup,
        DataLayout(load_settings().data_dir),
        keep_rounds=params["keep_rounds"],
        keep_days=params["keep_days"],
    )
    return cleanup.finish()


def _cleanup(params: Mapping[str, Any]) -> Cleanup:
    return Cleanup(now=datetime.now(tz=UTC), dry_run=params["dry_run"])


@contextmanager
def _docker_engine(settings: Settings) -> Iterator[list[Backend]]:
    """Connect to the engine that runs the model containers, and to a swarm if that is set.

    Raises
    ------
    PipelineError
        When it is unreachable.
    """
    try:
        with engine_client() as client:
            yield cleanup_backends(settings, lambda: client)
    except NoConnectionError as error:
        msg = f"the Docker engine is unreachable ({error}): nothing was removed. Check that it is running"
        raise PipelineError(msg) from None
