"""Services, their states, settings and image hashes."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from launcher.compose import Compose, ServiceStatus
from launcher.errors import UsageError
from launcher.options import WorkerOptions
from launcher.paths import ProjectPaths
from launcher.processes import Commands
from launcher.server_images import AIRFLOW, build_input_hash
from launcher.server_settings import NO_SECRET, SECRETS
from launcher.worker import worker_settings
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("state", "health", "exit_code", "is_ok"),
    [
        ("running", "healthy", 0, True),
        ("running", "starting", 0, False),
        ("running", "unhealthy", 0, False),
        ("restarting", "", 1, False),
        ("exited", "", 0, True),
        ("exited", "", 1, False),
        ("created", "", 0, False),
    ],
)
def test_service_status_is_ok_when_healthy_or_succeeded(state: str, health: str, exit_code: int, is_ok: bool) -> None:
    assert ServiceStatus("scheduler", state, health, exit_code, "id").is_ok is is_ok


@pytest.mark.parametrize(
    ("profiles", "further"), [("", set()), ("tls", {"tls"}), ("celery, practice", {"redis", "worker", "practice"})]
)
def test_services_excludes_inactive_profiles(profiles: str, further: set[str]) -> None:
    settings = {"COMPOSE_PROFILES": profiles, "COMPOSE_PROJECT_NAME": "numerai-x"}
    usual = {"airflow-init", "api-server", "dag-processor", "postgres", "scheduler", "socket-proxy", "triggerer"}
    assert set(Compose(Commands(), ("docker-compose",), ProjectPaths(ROOT), settings).services()) == usual | further


def test_compose_ignores_settings_of_the_shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy2(ROOT / ".env.example", tmp_path)
    monkeypatch.setenv("PORT", "1234")
    monkeypatch.setenv("NUMERAI_KEEP_DAYS", "9")
    output = Compose(Commands(), ("env",), ProjectPaths(tmp_path), {"BIND": "10.0.0.5"}).run()
    lines = output.splitlines()
    assert {"PORT=", "NUMERAI_KEEP_DAYS=", "BIND=10.0.0.5"} <= set(lines)


def worker(given: dict[str, str]) -> WorkerOptions:
    return WorkerOptions.model_validate(given)


def test_worker_settings_have_the_address_of_the_server() -> None:
    servers = {
        "PORT": "9000",
        "REDIS_PORT": "7000",
        "DOCKER_GID": "7",
        "DOCKER_SOCKET": "/nowhere",
        "REDIS_PASSWORD": "r",
    }
    servers |= {"FERNET_KEY": "f"}
    settings = worker_settings(servers, worker({"BROKER": "10.0.0.5", "NAME": "big", "QUEUES": "big-memory"}))
    assert settings["BROKER_ADDRESS"] == "10.0.0.5:7000"
    assert settings["EXECUTION_API_URL"] == "http://10.0.0.5:9000/execution/"
    assert (settings["WORKER_NAME"], settings["WORKER_QUEUES"]) == ("big", "big-memory")
    assert (settings["DOCKER_GID"], settings["REDIS_PASSWORD"]) == ("7", "r")
    assert {settings[name] for name in SECRETS if name != "REDIS_PASSWORD"} == {NO_SECRET}
    assert worker_settings(servers, worker({"BROKER": "10.0.0.5:7001"}))["BROKER_ADDRESS"] == "10.0.0.5:7001"
    with pytest.raises(UsageError, match="BROKER is empty"):
        worker_settings(servers, worker({}))


def test_build_input_hash_changes_with_every_input(tmp_path: Path) -> None:
    for name in AIRFLOW.inputs:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(source, tmp_path / name)
    before = build_input_hash(tmp_path, AIRFLOW)
    assert before == build_input_hash(ROOT, AIRFLOW)
    (tmp_path / "dags" / "__pycache__").mkdir()
    (tmp_path / "dags" / "__pycache__" / "x.pyc").write_text("x")
    assert build_input_hash(tmp_path, AIRFLOW) == before
    for name in ("uv.lock", "dags/numerai_tournament.py", "server/airflow/bootstrap.py"):
        (tmp_path / name).write_text("changed")
        after = build_input_hash(tmp_path, AIRFLOW)
        assert after != before, name
        before = after
    # the inputs include everything that the Dockerfile copies
    copied = [
        line.split()[1] for line in (ROOT / AIRFLOW.dockerfile).read_text().splitlines() if line.startswith("COPY")
    ]
    assert set(copied) <= set(AIRFLOW.inputs)
