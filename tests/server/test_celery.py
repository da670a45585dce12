"""Workers on several machines, simulated by checkouts with separate containers."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import docker
import pytest

from launcher.processes import wait_until
from launcher.worker import SERVER_SECRETS
from tests.server.server_fixture import DAG_ID, RUN_SECONDS, Server, copy_checkout, set_up

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.server, pytest.mark.containers, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def here(engine: docker.DockerClient) -> str:
    """Address of this machine that is reachable from every container network."""
    return str(engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, here: str) -> Iterator[Server]:
    """Set up a server whose own worker does not take tasks of the queue big-memory."""
    with set_up(tmp_path_factory.mktemp("celery") / "checkout") as prepared:
        prepared.add_toys({"long": {"MODE": "wait"}, "quick": {}}, long=2048)
        prepared.make_server(
            {
                "COMPOSE_PROFILES": "celery",
                "AIRFLOW_EXECUTOR": "CeleryExecutor",
                "NUMERAI_LARGE_QUEUE_MEMORY_MIB": "1024",
                "WORKER_QUEUES": "default,cpu",
                "WORKER_CONCURRENCY": "2",
                "BIND": here,
                "REDIS_BIND": here,
                "REDIS_PORT": "16379",
                "LOGS_VOLUME": str(prepared.data / "logs"),
            }
        )
        yield prepared


@pytest.fixture(scope="module")
def elsewhere(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Make the checkout of another machine, with the server's data directory, and its .env without its secrets."""
    root: Path = tmp_path_factory.mktemp("elsewhere") / "checkout"
    copy_checkout(root)
    settings = server.settings
    name = settings["COMPOSE_PROJECT_NAME"]
    text = (server.root / ".env").read_text().replace(f"NAME={name}", f"NAME={name}-elsewhere")
    lines = [line for line in text.splitlines() if line.partition("=")[0] not in SERVER_SECRETS]
    (root / ".env").write_text("\n".join(lines) + "\n")
    other = Server(root, server.events)
    other.__dict__["environment"] = server.environment
    yield other
    other.destroy()
    shutil.rmtree(root)


def hostname_of(server: Server, run: str, task: str) -> str:
    return str(server.task(run, task)["hostname"])


def test_task_goes_to_its_queue_and_survives_its_worker(server: Server, elsewhere: Server, here: str) -> None:
    refused = elsewhere.make("worker", check=False)
    assert refused.returncode != 0
    assert "BROKER is empty" in refused.stdout
    elsewhere.make("worker", f"BROKER={here}", "NAME=big-one", "QUEUES=big-memory")
    for workers in (server, elsewhere):
        environment = workers.compose("exec", "-T", "worker", "env")
        assert [name for name in SERVER_SECRETS if server.settings[name] in environment] == []
    server.trigger("spread")
    container = server.running_container("spread", "long")
    assert wait_until(lambda: server.task("spread", "quick")["state"] == "success", RUN_SECONDS, every=1)
    assert (hostname_of(server, "spread", "quick"), hostname_of(server, "spread", "long")) == ("worker", "big-one")

    project = elsewhere.settings["COMPOSE_PROJECT_NAME"]
    subprocess.run(["docker", "kill", f"{project}_worker_1"], check=True, capture_output=True)
    elsewhere.make("worker", f"BROKER={here}", "NAME=big-two", "QUEUES=big-memory")
    assert server.containers("spread", of_task="long") == [container]

    def is_reattached() -> bool:
        found = server.task("spread", "long")
        return (found["state"], found["hostname"]) == ("running", "big-two")

    assert wait_until(is_reattached, RUN_SECONDS, every=1), server.task("spread", "long")
    server.release(container)
    assert server.wait_for_end("spread") == "success", server.api.task_instances(DAG_ID, "spread")
    assert server.created_containers("spread") == ["long", "quick"]
    assert server.containers("spread") == []
    events = server.api.log_events(DAG_ID, "spread", "long", server.task("spread", "long")["try_number"])
    assert any("long" in str(event["event"]) or "waiting" in str(event["event"]) for event in events)
