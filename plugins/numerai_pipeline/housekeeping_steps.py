"""The tasks of the DAG ``numerai_housekeeping``: they query Docker and Airflow before they remove anything."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from numerai_pipeline.airflow_words import in_airflow_words
from numerai_pipeline.data_volume import installation_id
from numerai_pipeline.errors import PipelineError
from numerai_pipeline.housekeeping import (
    Cleanup,
    mounted_by_containers,
    remove_containers,
    remove_downloads,
    remove_runs,
    remove_services,
)
from numerai_pipeline.reaper import asking_airflow, run_goes_on
from numerai_pipeline.run_layout import DataLayout
from numerai_pipeline.settings import LEAST_DAYS, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from airflow.sdk.types import RuntimeTaskInstanceProtocol
    from docker import APIClient


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
            "description_md": "Files of other rounds, and downloads, are removed when unused for this number of days.",
        },
    }


def clean_containers(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove this deployment's containers without an active task; return the removed objects."""
    settings = load_settings()
    cleanup = _cleanup(params)
    with in_airflow_words(), _docker_engine() as client:
        for remove in (remove_containers, remove_services) if settings.engine == "swarm" else (remove_containers,):
            remove(
                cleanup,
                client,
                installation_id(settings.data_dir),
                keep_days=settings.keep_container_days,
                is_wanted=asking_airflow(ti),
            )
        return cleanup.finish()


def clean_runs(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove the directories of old runs; return the removed objects."""
    settings = load_settings()
    cleanup = _cleanup(params)
    with in_airflow_words(), _docker_engine() as client:
        remove_runs(
            cleanup,
            DataLayout(settings.data_dir),
            keep_rounds=params["keep_rounds"],
            keep_days=params["keep_days"],
            mounted=mounted_by_containers(client, installation_id(settings.data_dir), settings),
            is_active=partial(run_goes_on, ti),
        )
        return cleanup.finish()


def clean_downloads(params: Mapping[str, Any]) -> dict[str, Any]:
    """Remove downloads that no run has requested recently; return the removed objects."""
    cleanup = _cleanup(params)
    with in_airflow_words():
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
def _docker_engine() -> Iterator[APIClient]:
    """Connect to the engine that runs the model containers.

    Raises
    ------
    PipelineError
        When it is unreachable: without it, it is unknown which directories are in use.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
    except DockerException as error:
        msg = f"the Docker engine is unreachable ({error}): nothing was removed. Check that it is running"
        raise PipelineError(msg) from None
    try:
        yield client.api
    finally:
        client.close()
