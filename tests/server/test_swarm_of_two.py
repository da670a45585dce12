"""A model on another node than the manager's: two engines in separate networks, with a cable between them."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from launcher.processes import wait_until
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from tests.containers.conftest import Outcome, airflow_database, archive, run_dag, run_pipeline, stub_images
from tests.server.swarm import SwarmNode

__all__ = ["airflow_database", "archive", "run_dag", "run_pipeline", "stub_images"]

PATIENCE = 240.0

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def nodes(stub_images: Path) -> Iterator[tuple[SwarmNode, SwarmNode, str]]:
    """Set up manager and worker, the worker with the stub image and a label for models; also yields the worker's id."""
    manager, worker = SwarmNode(), SwarmNode()
    try:
        for node in (manager, worker):
            node.start()
        name = worker.join(manager)
        worker.load(image_reference(stub_images, "stub_model"))
        with contextlib.closing(manager.client) as client:
            api: Any = client.api
            seen = api.inspect_node(name)
            api.update_node(name, seen["Version"]["Index"], {**seen["Spec"], "Labels": {"numerai": "models"}})
        yield manager, worker, name
    finally:
        worker.close()
        manager.close()


@pytest.fixture
def swarm(nodes: tuple[SwarmNode, SwarmNode, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Connect to the manager, and let the pipeline run its models on the worker."""
    manager, _, _ = nodes
    monkeypatch.setenv("DOCKER_HOST", manager.address)
    monkeypatch.setenv("NUMERAI_ENGINE", "swarm")
    monkeypatch.setenv("NUMERAI_SWARM_CONSTRAINTS", "node.labels.numerai==models")
    load_settings.cache_clear()
    with contextlib.closing(manager.client) as client:
        yield client.api


@pytest.fixture(autouse=True)
def no_leftover_containers() -> None:
    """Skip the check of the machine's own engine."""


def test_model_runs_on_another_node(
    nodes: tuple[SwarmNode, SwarmNode, str], swarm: Any, run_dag: Callable[..., Outcome]
) -> None:
    manager, worker, _ = nodes
    outcome = run_dag({"svm": {}, "xgboost": {"memory": 64, "parameters": {"MODE": "eat memory"}}}, seed=5)
    assert verified_manifest(RunLayout(outcome.directory).predictions("svm"))
    assert "[ 50 %] svm with seed 5" in outcome.output
    assert "xgboost: killed (exit code 137), most likely because it needed more memory than its limit" in outcome.output
    assert swarm.services() == []
    assert wait_until(lambda: manager.containers() == worker.containers() == [], PATIENCE, every=0.1)


def test_lost_node_fails_the_attempt_and_removes_its_container_later(
    nodes: tuple[SwarmNode, SwarmNode, str], swarm: Any, run_dag: Callable[..., Outcome]
) -> None:
    _, worker, name = nodes
    lost: list[bool] = []

    def lose() -> None:
        def works() -> bool:
            return any(task["Status"]["State"] == "running" for task in swarm.tasks())

        def is_down() -> bool:
            return bool(swarm.inspect_node(name)["Status"]["State"] == "down")

        lost.append(wait_until(works, PATIENCE, every=0.1))
        worker.pause()
        lost.append(wait_until(is_down, PATIENCE, every=0.1))

    thread = threading.Thread(target=lose)
    thread.start()
    try:
        outcome = run_dag({"svm": {"parameters": {"MODE": "hang"}}})
    finally:
        thread.join()
        worker.resume()
    assert lost == [True, True]
    assert str(outcome.tasks["svm"].state) == "failed"
    assert "svm: the swarm has lost its node" in outcome.output
    assert "is removed, but its node does not say that it ended" in outcome.output
    assert swarm.services() == []
    assert wait_until(lambda: worker.containers() == [], PATIENCE, every=0.1)
