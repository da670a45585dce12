"""Fixtures of the server's tests: the socket proxy in front of the real engine, and the toy that runs behind it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import docker
import pytest
from docker.models.containers import Container

from launcher.processes import wait_until
from tests.containers.conftest import (
    airflow_database,
    archive,
    no_leftover_containers,
    run_dag,
    run_pipeline,
    stub_images,
)
from tests.containers.test_data_volume import airflows_image, named_volume, toys
from tests.samples import ROOT

__all__ = [
    "airflow_database",
    "airflows_image",
    "archive",
    "named_volume",
    "no_leftover_containers",
    "run_dag",
    "run_pipeline",
    "stub_images",
    "toys",
]

SOCKET = Path("/var/run/docker.sock")
IMAGE = "numerai-tests-socket-proxy"
PORT = 2375


@dataclass(frozen=True)
class Proxy:
    """A running socket proxy: its container, its host name for this process, and the folder that may be mounted."""

    container: Container
    host: str
    data: Path

    @property
    def address(self) -> str:
        return f"tcp://{self.host}:{PORT}"

    @property
    def log(self) -> str:
        return self.container.logs().decode()


@pytest.fixture(scope="session")
def proxy_image(engine: docker.DockerClient) -> str:
    image, _ = engine.images.build(path=str(ROOT / "server" / "socket_proxy"), tag=IMAGE, rm=True, forcerm=True)
    return str(image.id)


StartProxy = Callable[..., AbstractContextManager[Proxy]]


@pytest.fixture(scope="session")
def internal_network(engine: docker.DockerClient) -> Iterator[str]:
    """An internal network, like the one between Airflow and the proxy."""
    name = f"numerai-tests-{uuid.uuid4().hex[:8]}"
    network = engine.networks.create(name, internal=True)
    yield name
    network.remove()


@pytest.fixture(scope="session")
def start_proxy(engine: docker.DockerClient, proxy_image: str, internal_network: str) -> StartProxy:
    """Run the proxy as the server does: unprivileged, in the group of the socket."""

    @contextmanager
    def started(data: Path | str, socket: Path = SOCKET, **environment: str) -> Iterator[Proxy]:
        container = engine.containers.create(
            proxy_image,
            environment=environment,
            group_add=[str(socket.stat().st_gid)],
            read_only=True,
            tmpfs={"/tmp": "mode=1777"},  # noqa: S108 - the container's own
            cap_drop=["ALL"],
            security_opt=["no-new-privileges"],
            volumes=[f"{socket}:{SOCKET}", f"{data}:/data:ro"],
            network=internal_network,
        )
        try:
            container.start()

            def is_healthy() -> bool:
                return container.exec_run(["/opt/socket_proxy/healthy.sh"]).exit_code == 0

            assert wait_until(is_healthy, 30, every=0.1), container.logs().decode()
            container.reload()
            host = container.attrs["NetworkSettings"]["Networks"][internal_network]["IPAddress"]
            yield Proxy(container, host, Path(data))
        finally:
            container.remove(force=True)

    return started


@pytest.fixture(scope="session")
def proxy(start_proxy: StartProxy, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """Run a proxy with all folders of these tests as its data volume."""
    with start_proxy(tmp_path_factory.getbasetemp()) as started:
        yield started


@pytest.fixture
def through_proxy(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Proxy:
    """Make the proxy the only engine of the pipeline."""
    monkeypatch.setenv("DOCKER_HOST", proxy.address)
    for name in [name for name in os.environ if name.startswith("DOCKER_") and name != "DOCKER_HOST"]:
        monkeypatch.delenv(name)
    return proxy
