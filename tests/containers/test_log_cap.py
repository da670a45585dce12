"""The cap of a container's log on a real engine: the disk is not filled, and the task still reads the needed lines."""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from typing import TYPE_CHECKING

import docker
import pytest

from numerai_pipeline.containers import engine_backend, limits
from numerai_pipeline.containers.backend import ContainerRequest
from numerai_pipeline.containers.engine_backend import EngineBackend
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.runner import ContainerRunner
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from docker import APIClient

pytestmark = pytest.mark.containers

IMAGE = "python:3.12-slim-bookworm"
LINES = 20_000
# 2 MB in 20,000 lines, with its progress, and a failure at the end
CHATTY = f"""
import pathlib, time
print("begin", flush=True)
while not pathlib.Path("/tmp/go").exists():
    time.sleep(0.05)
for number in range(1, {LINES} + 1):
    print(f"line {{number}}", "x" * 80)
    if number % 2000 == 0:
        print(f"[ {{100 * number // {LINES}}} %]", flush=True)
print("the data has no eras")
raise SystemExit(65)
"""


@pytest.fixture
def container(engine: docker.DockerClient, monkeypatch: pytest.MonkeyPatch) -> str:
    """Create a container with the sandbox's host configuration, except that its cap is 200 kB."""
    monkeypatch.setattr(limits, "LOG_OPTIONS", {"max-size": "100k", "max-file": "2"})
    monkeypatch.setattr(engine_backend, "STALL_SECONDS", 0.5)
    labels = {"numerai.tests": uuid.uuid4().hex}
    host_config = limits.sandbox_host_config(engine.api, [], memory=256, cores=1)
    created = engine.api.create_container(IMAGE, ["python", "-c", CHATTY], host_config=host_config, labels=labels)
    return str(created["Id"])


def runner_of(client: APIClient, workspace: Workspace, write_line: Callable[[str], object]) -> ContainerRunner:
    request = ContainerRequest(
        image=IMAGE,
        environment={},
        mounts=[],
        workspace=workspace,
        labels=ContainerLabels("volume", "deployment", "dag", "run", "svm", attempt=1, key="0123"),
        user=f"{os.getuid()}:{os.getgid()}",
        failure_log=workspace.directory.parent / "failure.log",
        time_limit=timedelta(minutes=5),
        memory=256,
        cores=1,
    )
    return ContainerRunner(
        EngineBackend(lambda: client, load_settings()),
        request,
        engine_timeout=10,
        state=None,
        write_line=write_line,
        warm_up=lambda: None,
        is_task_active=lambda: True,
    )


def test_log_is_capped_and_its_progress_and_end_are_read(
    engine: docker.DockerClient, container: str, tmp_path: Path
) -> None:
    workspace = Workspace(tmp_path / "work" / "svm" / "0123", {})
    lines: list[str] = []

    def write_line(line: str) -> None:
        lines.append(line)
        if line == "begin":
            # the task follows the log: from here on the container logs faster than it is read
            go = engine.api.exec_create(container, ["touch", "/tmp/go"])  # noqa: S108 - a path of the container
            engine.api.exec_start(go["Id"])

    try:
        engine.api.start(container)
        with pytest.raises(BadInputError, match="the data has no eras"):
            runner_of(engine.api, workspace, write_line).follow(container)
        kept = engine.api.logs(container)
        # as an attempt that comes too late for the lines that the engine has dropped
        late: list[str] = []
        with pytest.raises(BadInputError, match="the data has no eras"):
            runner_of(engine.api, workspace, late.append).follow(container)
    finally:
        engine.api.remove_container(container, force=True)
    assert len(kept) < 200_000
    assert b"begin" not in kept
    assert lines[-1] == late[-1] == "the data has no eras"
    # a task that falls behind misses lines, but neither the first ones nor the progress at the end
    assert lines[0] == "begin"
    assert "[ 100 %]" in lines
    assert "[ 100 %]" in late
