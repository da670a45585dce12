"""Housekeeping among real containers, and as the real DAG asking the real Airflow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import pytest

from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.containers.engine_backend import EngineBackend
from numerai_pipeline.containers.housekeeping import Cleanup, remove_containers
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.storage.layout import DataLayout, RunLayout
from numerai_pipeline.storage.task_records import require_record
from numerai_pipeline.storage.used_objects import RunRef
from tests.generated_results import add_task
from tests.samples import DEPLOYMENT, ROOT

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

    def container(run: RunRef, *, ends: bool, deployment: str = DEPLOYMENT) -> str:
        labels = {
            "numerai": installation_id(data.root),
            "numerai.deployment": deployment,
            "numerai.dag": run.dag,
            "numerai.run": run.run,
            "numerai.task": "svm",
        }
        made = engine.containers.run(
            image_reference(stub_images, "stub_model"),
            entrypoint=["true" if ends else "sleep", "600"],
            labels=labels,
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
    backend = EngineBackend(lambda: engine.api, load_settings())
    remove_containers(
        cleaning,
        backend,
        installation_id(data.root),
        DEPLOYMENT,
        keep_days=1,
        is_active=lambda container: (container.labels.dag, container.labels.run) == (ACTIVE.dag, ACTIVE.run),
    )
    cleaning.finish()
    # one call: others' containers may go while each is looked at
    return [str(container["Id"]) for container in engine.api.containers(all=True, filters={"label": "numerai"})]


def test_remove_orphans_removes_containers_of_ended_runs_only(
    engine: docker.DockerClient, start: Start, data: DataLayout
) -> None:
    ended, orphaned = start(OVER, ends=True), start(OVER, ends=False)
    others = {
        start(ACTIVE, ends=True),
        start(ACTIVE, ends=False),
        start(OVER, ends=True, deployment="another"),
    }
    ours = {ended, orphaned}
    assert others | ours <= set(cleanup(engine, data, days_later=0.9))
    assert others | ours <= set(cleanup(engine, data, days_later=1.1, dry_run=True))
    left = set(cleanup(engine, data, days_later=1.1))
    assert left.isdisjoint(ours)
    assert others <= left


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


def old_run(data: DataLayout, round_name: str, run: RunRef) -> Path:
    layout: RunLayout = data.run(round_name, "0123456789ab")
    add_task(layout, "svm", prediction=lambda _: None, variant=round_name, dataset=round_name)
    layout.run_metadata.write_text(json.dumps({"source": "numerai", "dag": run.dag, "run_id": run.run}))
    for path in [*data.root.rglob("*"), data.root]:
        os.utime(path, (0, 0), follow_symlinks=False)
    return layout.directory


def keys_of(directory: Path) -> list[str]:
    record = require_record(RunLayout(directory), "svm")
    return sorted([record.fit, str(record.prediction)])


def test_housekeeping_dag_removes_old_files_but_not_of_active_runs(
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
        instance = done.get_task_instance("runs")
        return tuple(instance.xcom_pull(task_ids=task)["removed"] for task in ("runs", "results"))

    results = [f"results/svm/{key}" for key in keys_of(over)]
    assert run(dry_run=True) == (["rounds/1000/0123456789ab"], results)
    assert over.exists()
    assert run(dry_run=False) == (["rounds/1000/0123456789ab"], results)
    assert not over.exists()
    assert all(data.result("svm", key).exists() for directory in (active, last) for key in keys_of(directory))
    assert active.exists()
    assert last.exists()
