"""The steps of the DAG ``numerai_housekeeping``: what is asked of Docker and of Airflow before anything is removed."""

from __future__ import annotations

from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from numerai_pipeline.airflow_words import in_airflow_words
from numerai_pipeline.data_volume import installation_id
from numerai_pipeline.errors import PipelineError
from numerai_pipeline.housekeeping import (
    Sweep,
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
    """Describe the choices of a clean-up as keyword arguments of ``airflow.sdk.Param``."""
    return {
        "dry_run": {
            "default": False,
            "type": "boolean",
            "title": "Dry run",
            "description_md": "Only say what would be removed.",
        },
        "keep_rounds": {
            "default": settings.keep_rounds,
            "type": "integer",
            "minimum": 1,
            "title": "Keep rounds",
            "description_md": "Keep the files of so many last rounds of each source, whatever their age.",
        },
        "keep_days": {
            "default": settings.keep_days,
            "type": "integer",
            "minimum": LEAST_DAYS,
            "title": "Keep days",
            "description_md": "Remove files of other rounds, and downloads, that were not used for so many days.",
        },
    }


def clean_containers(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove our containers for which no run waits any more; return what was removed."""
    settings = load_settings()
    sweep = _sweep(params)
    with in_airflow_words(), _docker_engine() as client:
        for remove in (remove_containers, remove_services) if settings.engine == "swarm" else (remove_containers,):
            remove(
                sweep,
                client,
                installation_id(settings.data_dir),
                keep_days=settings.keep_container_days,
                is_wanted=asking_airflow(ti),
            )
        return sweep.finish()


def clean_runs(params: Mapping[str, Any], ti: RuntimeTaskInstanceProtocol) -> dict[str, Any]:
    """Remove the directories of old runs; return what was removed."""
    settings = load_settings()
    sweep = _sweep(params)
    with in_airflow_words(), _docker_engine() as client:
        remove_runs(
            sweep,
            DataLayout(settings.data_dir),
            keep_rounds=params["keep_rounds"],
            keep_days=params["keep_days"],
            mounted=mounted_by_containers(client, installation_id(settings.data_dir), settings),
            is_active=partial(run_goes_on, ti),
        )
        return sweep.finish()


def clean_downloads(params: Mapping[str, Any]) -> dict[str, Any]:
    """Remove downloads that nobody asked for in a long time; return what was removed."""
    sweep = _sweep(params)
    with in_airflow_words():
        remove_downloads(
            sweep,
            DataLayout(load_settings().data_dir),
            keep_rounds=params["keep_rounds"],
            keep_days=params["keep_days"],
        )
        return sweep.finish()


def _sweep(params: Mapping[str, Any]) -> Sweep:
    return Sweep(now=datetime.now(tz=UTC), dry_run=params["dry_run"])


@contextmanager
def _docker_engine() -> Iterator[APIClient]:
    """Connect to the engine that the models' containers run on.

    Raises
    ------
    PipelineError
        When it does not answer: without it nobody knows what is in use.
    """
    import docker
    from docker.errors import DockerException

    try:
        client = docker.from_env()
    except DockerException as error:
        msg = f"the Docker engine does not answer ({error}): nothing was removed"
        raise PipelineError(msg) from None
    try:
        yield client.api
    finally:
        client.close()
