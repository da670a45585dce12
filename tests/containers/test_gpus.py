"""GPUs of a container: the request that reaches the engine, and the refusal of an engine that has none.

No GPU is needed: a real engine without a driver for them refuses to start such a container.
"""

from __future__ import annotations

import json
import os
import socketserver
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import docker
import pytest

from numerai_pipeline.containers.backend import ContainerRequest
from numerai_pipeline.containers.engine_backend import EngineBackend
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings
from tests.containers.conftest import Outcome
from tests.engine_relay import pass_on

pytestmark = pytest.mark.containers

RunDag = Callable[..., Outcome]
IMAGE = "python:3.12-slim-bookworm"


class _Recorder(socketserver.StreamRequestHandler):
    """Passes a connection on to the engine and records the requests of the client."""

    recorded: bytearray

    def handle(self) -> None:
        pass_on(self.connection, self.recorded.extend)


@pytest.fixture
def gateway(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> Iterator[bytearray]:
    """A gateway before the engine; yields its records."""
    recorded = bytearray()
    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), type("Handler", (_Recorder,), {"recorded": recorded}))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{server.server_address[1]}")
    yield recorded
    server.shutdown()
    thread.join()
    server.server_close()


def host_config_in(recorded: bytes) -> dict[str, Any]:
    """Return the host configuration of the container whose creation was recorded."""
    request = recorded[recorded.index(b"/containers/create") :]
    decoded, _ = json.JSONDecoder().raw_decode(request.split(b"\r\n\r\n", 1)[1].decode(errors="replace"))
    found: dict[str, Any] = decoded["HostConfig"]
    return found


def request_of(tmp_path: Path, gpus: int | Literal["all"]) -> ContainerRequest:
    workspace = Workspace(tmp_path / "work" / "svm" / "0123", {})
    return ContainerRequest(
        image=IMAGE,
        environment={},
        mounts=[],
        workspace=workspace,
        labels=ContainerLabels("volume", "deployment", "dag", "run", "svm", attempt=1, key="0123"),
        user=f"{os.getuid() or 10001}:10001",
        failure_log=tmp_path / "failure.log",
        time_limit=timedelta(minutes=1),
        memory=64,
        cores=1,
        gpus=gpus,
    )


@pytest.mark.parametrize(("gpus", "count"), [(2, 2), ("all", -1)])
def test_engine_gets_a_request_of_gpus_and_its_refusal_is_explained(
    engine: docker.DockerClient, gateway: bytearray, tmp_path: Path, gpus: int | Literal["all"], count: int
) -> None:
    client = docker.APIClient(os.environ["DOCKER_HOST"])
    backend, request = EngineBackend(lambda: client, load_settings()), request_of(tmp_path, gpus)
    created = backend.create(request)
    try:
        with pytest.raises(BadInputError) as refused:
            backend.start(created, request)
    finally:
        engine.api.remove_container(created, force=True)
    [device] = host_config_in(bytes(gateway))["DeviceRequests"]
    assert {name: value for name, value in device.items() if value} == {"Count": count, "Capabilities": [["gpu"]]}
    message = str(refused.value)
    assert f"svm: models.yaml sets `gpus: {gpus}`, but the Docker engine at {os.environ['DOCKER_HOST']}" in message
    assert "could not select device driver" in message
    assert "install NVIDIA's driver and Container Toolkit" in message


def test_container_without_gpus_has_no_device_request(
    engine: docker.DockerClient, gateway: bytearray, tmp_path: Path
) -> None:
    client = docker.APIClient(os.environ["DOCKER_HOST"])
    backend, request = EngineBackend(lambda: client, load_settings()), request_of(tmp_path, 0)
    created = backend.create(request)
    try:
        backend.start(created, request)
    finally:
        engine.api.remove_container(created, force=True)
    host_config = host_config_in(bytes(gateway))
    assert "DeviceRequests" not in host_config
    # the engine of the tests has a default of its own
    assert host_config["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "3"}}


def test_task_without_a_gpu_fails_without_a_retry_and_leaves_no_container(run_dag: RunDag) -> None:
    outcome = run_dag({"svm": {"gpus": 1}}, retries=2)
    assert outcome.state == "failed"
    assert (str(outcome.tasks["svm"].state), outcome.tasks["svm"].try_number) == ("failed", 1)
    assert "svm: models.yaml sets `gpus: 1`, but the Docker engine at" in outcome.output
