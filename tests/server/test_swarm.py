"""Model tasks in the real DAG, as services of a real swarm of one node in a separate engine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.models import DagRun
from airflow.utils.session import create_session
from sqlalchemy import update

from launcher.processes import wait_until
from numerai_pipeline.containers.data_volume import installation_id
from numerai_pipeline.containers.housekeeping import Cleanup, remove_containers
from numerai_pipeline.containers.orphans import find_orphans
from numerai_pipeline.containers.platforms import cleanup_backends
from numerai_pipeline.containers.swarm_api import remove_service, service_last_change
from numerai_pipeline.containers.swarm_backend import SwarmBackend
from numerai_pipeline.core.parameters import LONGEST_SEARCH
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.models.registry import ModelSpec
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from tests.containers.conftest import (
    Outcome,
    airflow_database,
    archive,
    run_dag,
    run_pipeline,
    stub_images,
    stub_registry,
)
from tests.samples import DEPLOYMENT, ROOT
from tests.server.swarm import SwarmNode

__all__ = ["airflow_database", "archive", "run_dag", "run_pipeline", "stub_images"]

RunDag = Callable[..., Outcome]
PATIENCE = 240.0
DATE = "2026-01-03T12:00:00+00:00"

pytestmark = pytest.mark.containers
# long tests; the others are part of `make test`
LONG = pytest.mark.server


@pytest.fixture(scope="session")
def node(stub_images: Path) -> Iterator[SwarmNode]:
    """Set up a swarm of one node that has the toy image."""
    found = SwarmNode()
    try:
        found.start()
        found.init_swarm()
        found.load(image_reference(stub_images, "stub_model"))
        yield found
    finally:
        found.close()


@pytest.fixture
def swarm(node: SwarmNode) -> Iterator[Any]:
    """Connect to the swarm's manager."""
    with contextlib.closing(node.client) as client:
        yield client.api


@pytest.fixture(autouse=True)
def on_the_swarm(node: SwarmNode, swarm: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the pipeline run its models in the swarm, and check that no test leaves a service."""
    monkeypatch.setenv("DOCKER_HOST", node.address)
    monkeypatch.setenv("NUMERAI_ENGINE", "swarm")
    load_settings.cache_clear()
    yield
    leftover = swarm.services()
    for service in leftover:
        remove_service(swarm, service["ID"])
    assert leftover == []
    # the node removes the container of an ended service later
    assert wait_until(lambda: node.containers() == [], PATIENCE, every=0.1)


@pytest.fixture(autouse=True)
def no_leftover_containers() -> None:
    """Skip the check of the machine's own engine."""


def wait_for_service(swarm: Any, *states: str) -> str:
    """Wait until there is a service, in one of these states if any are named; return its id."""
    found: list[str] = []

    def look() -> bool:
        found[:] = [each["ServiceID"] for each in swarm.tasks() if not states or each["Status"]["State"] in states]
        return bool(found)

    assert wait_until(look, PATIENCE, every=0.05)
    return found[0]


class Begun:
    """A run in a separate process, and its output so far."""

    def __init__(self, archive: Path, log: Path) -> None:
        self._log = log
        conf = json.dumps({"source": "archive", "archive": str(archive)})
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, ROOT / "tests/server/one_run.py", DATE, conf],
                stdout=file,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT}/plugins"},
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def prints(self, text: str) -> bool:
        """Wait until its output contains a text."""
        return bool(wait_until(lambda: text in self.output, PATIENCE, every=0.1))


@pytest.fixture
def begin(
    airflow_database: None, stub_images: Path, archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[str], Begun]]:
    """Start the run of a date, each time as another attempt of its task, with a mode for svm."""
    begun: list[Begun] = []
    monkeypatch.setenv("NUMERAI_POOL", "default_pool")

    def start(mode: str) -> Begun:
        images = stub_registry(stub_images, tmp_path, {"svm": {"parameters": {"MODE": mode}}})
        monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images))
        begun.append(Begun(archive, tmp_path / f"output-{len(begun)}"))
        return begun[-1]

    yield start
    for each in begun:
        each.process.kill()
        each.process.wait()


@pytest.fixture
def orphaned_service(begin: Callable[[str], Begun], swarm: Any) -> str:
    """Kill the process of a task and keep its service running; returns the service's id."""
    run = begin("wait for file")
    service = wait_for_service(swarm, "running")
    run.process.kill()
    run.process.wait()
    return service


def svm(outcome: Outcome) -> str:
    return str(outcome.tasks["svm"].state)


def test_model_service_has_no_rights_and_no_network(run_dag: RunDag, swarm: Any) -> None:
    seen: dict[str, Any] = {}

    def look() -> None:
        seen.update(swarm.inspect_service(wait_for_service(swarm)))

    watcher = threading.Thread(target=look)
    watcher.start()
    outcome = run_dag({"svm": {"memory": 128, "parameters": {"MODE": "look at rights"}}}, seed=5)
    watcher.join()
    assert outcome.state == "success", outcome.output
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))
    labels, template = seen["Spec"]["Labels"], seen["Spec"]["TaskTemplate"]
    assert labels["numerai.run"] == outcome.tasks["svm"].run_id
    assert labels["numerai.try"] == "1"
    assert template["RestartPolicy"]["Condition"] == "none"
    assert template["Resources"]["Limits"]["Pids"] == 4096
    assert template["Resources"]["Limits"]["MemoryBytes"] == template["Resources"]["Reservations"]["MemoryBytes"]
    assert template["Resources"]["Reservations"]["NanoCPUs"] == 10**9
    assert not any("docker.sock" in mount.get("Source", "") for mount in template["ContainerSpec"]["Mounts"])
    output = outcome.output
    assert output.count("[ 50 %] svm with seed 5") == 1
    user = os.getuid() or 10001
    assert f"rights 0000000000000000, user {user}, shared memory 1073741824" in output
    assert "cannot write /etc/spoilt: Read-only file system" in output
    assert "can write /tmp/own" in output
    assert "cannot reach 1.1.1.1: Network is unreachable" in output
    assert "can reach 172" not in output.replace("cannot reach 172", "")


@LONG
@pytest.mark.parametrize(
    ("entry", "message", "tries"),
    [
        ({"parameters": {"MODE": "bad data"}}, "svm: bad data (exit code 65): training.parquet: column 'era'", 1),
        ({"parameters": {"MODE": "bug"}}, "svm: a bug (exit code 70): a division by zero", 2),
    ],
)
def test_service_exit_code_decides_about_the_retry(
    run_dag: RunDag, entry: dict[str, Any], message: str, tries: int
) -> None:
    outcome = run_dag({"svm": entry}, retries=1)
    assert svm(outcome) == "failed"
    assert outcome.tasks["svm"].try_number == tries
    assert message in outcome.output


@LONG
def test_out_of_memory_names_the_limit_and_the_setting(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"memory": 64, "parameters": {"MODE": "eat memory"}}})
    assert "its limit is 64 MiB; raise `memory` of task svm in models.yaml" in outcome.output


@LONG
def test_timeout_removes_the_service(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes: 5 if minutes == LONGEST_SEARCH else 0.05)
    outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    assert svm(outcome) == "failed"
    assert "svm: stopped after its time limit of 0.05 minutes; raise `time_limit` of task svm" in outcome.output
    assert "It never started" not in outcome.output


@LONG
def test_service_without_a_suitable_node_reports_the_reason(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_SWARM_CONSTRAINTS", "node.labels.numerai==models")
    monkeypatch.setattr(ModelSpec, "minutes", lambda _spec, minutes: 5 if minutes == LONGEST_SEARCH else 0.05)
    outcome = run_dag({"svm": {}})
    assert svm(outcome) == "failed"
    reason = "no suitable node (scheduling constraints not satisfied on 1 node)"
    assert f"waits for a node: {reason}" in outcome.output
    assert f"It never started: no node of the swarm had room for it ({reason})" in outcome.output


@LONG
@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "NUMERAI_IMAGE_REGISTRY",
            "127.0.0.1:9/nothing/",
            "cannot be pulled there: put the model images in a registry",
        ),
        ("NUMERAI_DATA_DIR_ON_HOST", "/nowhere", "does not have the data volume (invalid mount config"),
    ],
)
def test_node_without_image_or_volume_is_named_with_the_remedy(
    run_dag: RunDag, swarm: Any, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    outcome = run_dag({"svm": {}})
    assert svm(outcome) == "failed"
    assert message in outcome.output
    assert f"node {swarm.info()['Name']} " in outcome.output


@LONG
def test_drained_node_ends_its_models(run_dag: RunDag, swarm: Any) -> None:
    def set_availability(availability: str) -> None:
        (node,) = swarm.nodes()
        swarm.update_node(node["ID"], node["Version"]["Index"], {**node["Spec"], "Availability": availability})

    def drain() -> None:
        wait_for_service(swarm, "running")
        set_availability("drain")

    thread = threading.Thread(target=drain)
    thread.start()
    try:
        outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    finally:
        thread.join()
        set_availability("active")
    assert svm(outcome) == "failed"
    assert f"svm: the swarm stopped it (shutdown): its node {swarm.info()['Name']} was drained" in outcome.output


@LONG
def test_engine_that_is_not_a_manager_is_rejected(run_dag: RunDag, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DOCKER_HOST")
    outcome = run_dag({"svm": {}}, retries=3)
    assert outcome.tasks["svm"].try_number == 1
    assert "NUMERAI_ENGINE=swarm needs a manager of a swarm" in outcome.output


@LONG
def test_stopped_task_leaves_its_service_to_the_next_attempt(begin: Callable[[str], Begun], swarm: Any) -> None:
    run = begin("wait for file")
    service = wait_for_service(swarm, "running")
    run.process.send_signal(signal.SIGTERM)
    assert run.prints("this process is stopped; the next attempt reattaches to its service"), run.output
    # the run schedules the task again
    mounts = swarm.inspect_service(service)["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"]
    Path(mounts[0]["Source"], "go").touch()
    run.process.wait(timeout=PATIENCE)
    assert "svm ended as success" in run.output
    assert run.output.count("started service") == 1


@LONG
def test_next_attempt_reattaches_to_the_service(
    begin: Callable[[str], Begun], orphaned_service: str, swarm: Any
) -> None:
    run = begin("wait for file")
    assert run.prints(f"reattaching to service {orphaned_service[:12]} of an earlier attempt"), run.output
    mounts = swarm.inspect_service(orphaned_service)["Spec"]["TaskTemplate"]["ContainerSpec"]["Mounts"]
    Path(mounts[0]["Source"], "go").touch()
    run.process.wait(timeout=PATIENCE)
    assert "svm ended as success" in run.output
    assert "started service" not in run.output
    assert run.output.count("[ 50 %] svm with seed") == 1


@LONG
def test_service_of_other_work_is_replaced(begin: Callable[[str], Begun], orphaned_service: str) -> None:
    run = begin("good")
    run.process.wait(timeout=PATIENCE)
    assert f"removing service {orphaned_service[:12]} of an earlier attempt (running)" in run.output
    assert run.output.count("started service") == 1
    assert "svm ended as success" in run.output


@LONG
def test_housekeeping_handles_services(orphaned_service: str, swarm: Any, tmp_path: Path) -> None:
    settings = load_settings()
    installation = installation_id(settings.data_dir)
    backend = SwarmBackend(lambda: swarm, settings)
    backends = cleanup_backends(settings, lambda: swarm)
    assert [each.kind for each in backends] == ["container", "service"]
    (service,) = find_orphans(backend, installation, DEPLOYMENT, lambda _container: False)
    assert service.id == orphaned_service
    assert (service.labels.dag, service.labels.task) == ("numerai_tournament", "svm")
    assert find_orphans(backend, "another", DEPLOYMENT, lambda _container: False) == []
    assert find_orphans(backend, installation, "another", lambda _container: False) == []
    since = service_last_change(swarm, orphaned_service)
    assert since is not None

    def clean(days: float, *, active: bool) -> list[str]:
        cleanup = Cleanup(now=since + timedelta(days=days))
        remove_containers(cleanup, backend, installation, DEPLOYMENT, keep_days=1, is_active=lambda _container: active)
        return cleanup.removed

    assert clean(2, active=True) == []
    assert clean(0.5, active=False) == []
    assert clean(2, active=False) == [f"service {orphaned_service[:12]} (running) of svm, {service.labels.run}"]
    assert swarm.services() == []
    assert service_last_change(swarm, orphaned_service) is None


@LONG
def test_new_run_removes_orphaned_services(orphaned_service: str, run_dag: RunDag) -> None:
    with create_session() as session:
        session.execute(update(DagRun).values(state="failed"))
    outcome = run_dag({"svm": {}})
    assert f"removing service {orphaned_service[:12]} (running): task svm of run" in outcome.output
    assert svm(outcome) == "success"
