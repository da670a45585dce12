"""Housekeeping among real containers, and as the real DAG asking the real Airflow."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from numerai_pipeline.containers.data_volume import find_data_volume, installation_id
from numerai_pipeline.containers.engine_backend import EngineBackend
from numerai_pipeline.containers.housekeeping import Cleanup, mounted_by_containers, remove_containers
from numerai_pipeline.containers.platforms import cleanup_backends
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.run_markers import RunRef, mark_in_use
from tests.samples import ROOT

pytestmark = pytest.mark.containers

ACTIVE = RunRef("numerai_tournament", "going_on")
OVER = RunRef("numerai_tournament", "over")

Start = Callable[..., str]


@pytest.fixture
def data() -> DataLayout:
    return DataLayout(load_settings().data_dir)


@pytest.fixture
def start(engine: docker.DockerClient, stub_images: Path, data: DataLayout) -> Iterator[Start]:
    """Start a container as a run would; gives its id."""
    started = []

    def container(lease: RunRef, *, ends: bool, installation: str | None = None, mounts: Path | None = None) -> str:
        labels = {
            "numerai": installation or installation_id(data.root),
            "numerai.dag": lease.dag,
            "numerai.run": lease.run,
            "numerai.task": "svm",
        }
        made = engine.containers.run(
            image_reference(stub_images, "stub_model"),
            entrypoint=["true" if ends else "sleep", "600"],
            labels=labels,
            volumes=[f"{mounts}:/data"] if mounts else [],
            network_mode="none",
            detach=True,
        )
        started.append(made)
        if ends:
            made.wait()
        return str(made.id)

    yield container
    for made in started:
        try:
            made.remove(force=True)
        except docker.errors.NotFound:
            continue


def cleanup(engine: docker.DockerClient, data: DataLayout, *, days_later: float, dry_run: bool = False) -> list[str]:
    """Clean up as if it were so many days later; returns the ids of the containers that are there still."""
    cleaning = Cleanup(datetime.now(tz=UTC) + timedelta(days=days_later), dry_run)
    installation = installation_id(data.root)
    backend = EngineBackend(lambda: engine.api, load_settings())
    remove_containers(
        cleaning,
        backend,
        installation,
        keep_days=1,
        is_active=lambda labels: (labels.dag, labels.run) == (ACTIVE.dag, ACTIVE.run),
    )
    cleaning.finish()
    # one call: others' containers may go while each is looked at
    return [str(container["Id"]) for container in engine.api.containers(all=True, filters={"label": "numerai"})]


def test_containers_of_runs_that_are_over_go_and_all_others_stay(
    engine: docker.DockerClient, start: Start, data: DataLayout
) -> None:
    ended, orphaned = start(OVER, ends=True), start(OVER, ends=False)
    others = {
        start(ACTIVE, ends=True),
        start(ACTIVE, ends=False),
        start(OVER, ends=True, installation="of another owner"),
    }
    ours = {ended, orphaned}
    assert others | ours <= set(cleanup(engine, data, days_later=0.9))
    assert others | ours <= set(cleanup(engine, data, days_later=1.1, dry_run=True))
    left = set(cleanup(engine, data, days_later=1.1))
    assert left.isdisjoint(ours)
    assert others <= left


def test_a_directory_is_in_use_as_long_as_a_container_of_ours_works_in_it(
    engine: docker.DockerClient, start: Start, data: DataLayout
) -> None:
    working, done = data.run("1000", "working").directory, data.run("1000", "done").directory
    for directory in (working, done):
        directory.mkdir(parents=True)
    start(OVER, ends=False, mounts=working)
    start(OVER, ends=True, mounts=done)
    settings = load_settings()
    backends = cleanup_backends(settings, lambda: engine.api)
    mounted = mounted_by_containers(backends, installation_id(data.root), find_data_volume(settings, engine.api))
    assert mounted(working)
    assert not mounted(done)


@pytest.fixture
def going_on(airflow_database: None) -> Iterator[RunRef]:
    """Have a run in Airflow's database that is running."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from airflow.utils.state import DagRunState
    from airflow.utils.types import DagRunTriggeredByType, DagRunType

    with create_session() as session:
        run = DagRun(
            dag_id=ACTIVE.dag,
            run_id=ACTIVE.run,
            run_type=DagRunType.MANUAL,
            run_after=datetime.now(tz=UTC),
            state=DagRunState.RUNNING,
            triggered_by=DagRunTriggeredByType.TEST,
        )
        session.add(run)
    yield ACTIVE
    with create_session() as session:
        session.delete(session.merge(run))


def old_run(data: DataLayout, round_name: str, lease: RunRef) -> Path:
    layout: RunLayout = data.run(round_name, "0123456789ab")
    mark_in_use(data, layout, lease)
    layout.run_metadata.write_text('{"source": "numerai"}')
    for path in [*layout.directory.rglob("*"), layout.directory]:
        os.utime(path, (0, 0))
    return layout.directory


def test_the_dag_removes_what_is_old_but_not_what_airflow_says_goes_on(
    engine: docker.DockerClient, data: DataLayout, going_on: RunRef
) -> None:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(ROOT / "dags" / "numerai_housekeeping.py", bundle_name="dags-folder")
    assert bag.import_errors == {}
    dag = bag.dags["numerai_housekeeping"]
    over, active, last = old_run(data, "1000", OVER), old_run(data, "1001", going_on), old_run(data, "1002", OVER)

    def run(**conf: Any) -> Any:
        done = dag.test(run_conf={"keep_rounds": 1, **conf}, logical_date=None)
        assert str(done.state) == "success"
        return done.get_task_instance("runs").xcom_pull(task_ids="runs")

    assert run(dry_run=True)["removed"] == ["rounds/1000/0123456789ab"]
    assert over.exists()
    assert run(dry_run=False)["removed"] == ["rounds/1000/0123456789ab"]
    assert not over.exists()
    assert active.exists()
    assert last.exists()
