"""docker-compose.yaml: the required properties of every service, and its validity for Compose."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from launcher.compose import find_program
from launcher.paths import ProjectPaths
from launcher.processes import Commands
from launcher.server_settings import SECRETS, create_env_file, read_settings
from numerai_pipeline.core.settings import DEPRECATED_VARIABLES, SETTINGS_FIELDS
from numerai_pipeline.dag import task_secrets
from server.airflow import api_server
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "docker-compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
ONCE = "airflow-init"
LASTING = sorted(set(SERVICES) - {ONCE})
# Variable of .env -> the services that need it, and no others; docs/deployment/server.md has the reasons
NUMERAI_SECRETS = ("NUMERAI_PUBLIC_ID", "NUMERAI_SECRET_KEY")
NEEDS = {
    "POSTGRES_PASSWORD": {"postgres", "airflow-init", "api-server", "scheduler", "dag-processor", "triggerer"},
    "FERNET_KEY": {"airflow-init", "api-server", "scheduler", "dag-processor", "triggerer"},
    "JWT_SECRET": {"api-server", "scheduler"},
    "API_SECRET_KEY": {"api-server", "scheduler", "triggerer"},
    "REDIS_PASSWORD": {"redis", "scheduler", "worker"},
    "ADMIN_PASSWORD": {"airflow-init"},
    **{name: {"airflow-init", "scheduler", "worker"} for name in NUMERAI_SECRETS},
}
# Compose v2 alone knows these, and docker-compose 1.29 refuses them
ONLY_V2 = ("name:", "start_interval", "required:", "develop:", "include:", "create_host_path", "pull_policy: build")


@pytest.mark.parametrize("name", LASTING)
def test_services_have_health_checks_restarts_and_limits(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\$\{[A-Z_]+_MEMORY:-\d+[mg]\}", service["mem_limit"])
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_airflow_init_runs_once_before_airflow() -> None:
    assert SERVICES[ONCE]["restart"] == "no"
    assert SERVICES[ONCE]["mem_limit"]
    for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert SERVICES[name]["depends_on"] == {ONCE: {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_services_have_configurable_images(name: str) -> None:
    assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[\w./:-]+\}", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_ports_are_published_only_on_this_machine_by_default(name: str) -> None:
    for published in SERVICES[name].get("ports", []):
        address = re.match(r"\$\{(\w+):-([^}]*)\}:", published)
        assert address, f"{name} publishes {published} on every address"
        # the profile tls is meant for other machines
        assert address[2] == "127.0.0.1" or name == "tls"


def test_docker_socket_is_mounted_only_by_the_proxy() -> None:
    with_socket = [
        name for name, service in SERVICES.items() if "docker.sock" in json.dumps(service.get("volumes", []))
    ]
    assert with_socket == ["socket-proxy"]
    assert SERVICES["socket-proxy"]["networks"] == ["engine"]
    assert sorted(name for name, service in SERVICES.items() if "engine" in service["networks"]) == [
        "airflow-init",
        "scheduler",
        "socket-proxy",
        "worker",
    ]
    networks = yaml.safe_load(TEXT)["networks"]
    assert networks["engine"]["internal"]
    assert networks["backend"]["internal"]


def test_services_run_existing_modules() -> None:
    modules = re.findall(r'"python", "-m", "(server[\w.]+)"', TEXT)
    assert set(modules) == {
        "server.airflow.api_server",
        "server.airflow.bootstrap",
        "server.airflow.celery_worker",
        "server.airflow.health",
        "server.airflow.scheduler_watchdog",
    }
    assert [name for name in modules if not (ROOT / name.replace(".", "/")).with_suffix(".py").is_file()] == []


def test_secrets_have_no_default() -> None:
    example = read_settings((ROOT / ".env.example").read_text())
    for name in SECRETS:
        assert example[name] == ""
        unset = {":-"} if name == "REDIS_PASSWORD" else {":?is not in .env - make server writes it"}
        assert set(re.findall(rf"\$\{{{name}([^}}]*)\}}", TEXT)) == unset


def test_services_have_only_the_secrets_that_they_need() -> None:
    assert set(NEEDS) == {*SECRETS, *NUMERAI_SECRETS}
    for secret, services in NEEDS.items():
        assert {name for name, service in SERVICES.items() if f"${{{secret}:" in json.dumps(service)} == services


def test_only_the_api_server_has_the_secret_of_the_sign_in() -> None:
    holders = {name for name, service in SERVICES.items() if "${OIDC_CLIENT_SECRET:" in json.dumps(service)}
    assert holders == {"api-server"}
    # the mounts of the other services, and the configuration
    *volumes, configuration = SERVICES["api-server"]["volumes"]
    assert volumes == SERVICES["triggerer"]["volumes"]
    assert configuration.endswith(":/opt/airflow/webserver_config.py:ro")


def test_worker_environment_has_no_secret_but_the_brokers_and_the_accounts() -> None:
    """A worker's environment, each variable of it: those that are not of the pipeline are listed here."""
    worker = SERVICES["worker"]
    secrets = {
        name: re.findall(r"\$\{(\w+)", value)
        for name, value in worker["environment"].items()
        if re.search("PASSWORD|SECRET|KEY", value)
    }
    assert secrets == {
        "AIRFLOW__CELERY__BROKER_URL": ["REDIS_PASSWORD", "BROKER_ADDRESS"],
        "AIRFLOW__CELERY__RESULT_BACKEND": ["REDIS_PASSWORD", "BROKER_ADDRESS"],
        "NUMERAI_SECRET_KEY": ["NUMERAI_SECRET_KEY"],
    }
    others = {name for name in worker["environment"] if not name.startswith(("NUMERAI_", "OTEL_"))}
    assert others - {*DEPRECATED_VARIABLES.values(), *secrets, "DOCKER_HOST"} == {
        name
        for name in SERVICES["airflow-init"]["environment"]
        if name.startswith("AIRFLOW__") and name not in {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN", *task_secrets.SECRETS}
    }
    # the logs are read from the shared folder: a server of logs would need the key of the sessions
    assert "--skip-serve-logs" in worker["command"]


def test_task_processes_lose_the_secrets_of_their_service() -> None:
    secrets = set(NEEDS) - set(NUMERAI_SECRETS)
    with_secret = {
        name
        for name, value in SERVICES["scheduler"]["environment"].items()
        if secrets.intersection(re.findall(r"\$\{(\w+)", value))
    }
    # Airflow itself replaces the database's address
    assert with_secret - {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"} == set(task_secrets.SECRETS)


def test_documentation_lists_the_services_of_each_secret() -> None:
    text = (ROOT / "docs" / "deployment" / "server.md").read_text()
    listed = {
        secret: set(re.findall(r"`([\w-]+)`", services))
        for secret, services in re.findall(r"^\| `([A-Z_]+)` \| ([^|]*) \|", text, flags=re.MULTILINE)
        if secret in NEEDS
    }
    assert listed == {secret: NEEDS[secret] for secret in SECRETS}


def test_only_the_reverse_proxy_is_in_the_network_whose_headers_are_trusted() -> None:
    members = {name for name, service in SERVICES.items() if "tls" in service["networks"]}
    assert members == {"tls", "api-server"}
    assert SERVICES["api-server"]["networks"]["tls"]["aliases"] == [api_server.OWN_NAME]
    assert yaml.safe_load(TEXT)["networks"]["tls"]["internal"]
    assert f"http://{api_server.OWN_NAME}:8080" in (ROOT / "server" / "tls" / "nginx.conf").read_text()
    assert read_settings((ROOT / ".env.example").read_text())[api_server.VARIABLE] == ""
    assert SERVICES["api-server"]["environment"][api_server.VARIABLE] == "${FORWARDED_ALLOW_IPS:-}"
    # it would trust the headers of every sender
    assert "PROXY_FIX" not in TEXT


def test_settings_are_passed_to_airflow_and_described() -> None:
    for variable in [*(f"NUMERAI_{name.upper()}" for name in SETTINGS_FIELDS), *DEPRECATED_VARIABLES.values()]:
        assert f"{variable}: ${{{variable}:" in TEXT
    example = read_settings((ROOT / ".env.example").read_text())
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    others = {name for name in used if not name.startswith("NUMERAI_")} - set(DEPRECATED_VARIABLES.values())
    assert others - set(example) == {
        # for those with an engine or a database elsewhere
        "ENGINE_ADDRESS",
        "POSTGRES_ADDRESS",
    }
    assert set(example) - used == {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}


def test_compose_file_works_with_compose_v1_and_v2() -> None:
    assert [key for key in ONLY_V2 if re.search(rf"^\s*-?\s*{re.escape(key)}", TEXT, re.MULTILINE)] == []
    # 1.29 does not substitute variables within a default
    assert not re.search(r"\$\{[^}]*\$\{", TEXT)


def test_compose_config_accepts_the_file(tmp_path: Path) -> None:
    program = find_program(Commands())
    if program is None:
        pytest.skip("there is no docker compose on this machine: make test-server installs one")
    shutil.copytree(ROOT / "server", tmp_path / "server", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("docker-compose.yaml", ".env.example"):
        shutil.copy2(ROOT / name, tmp_path)
    settings = create_env_file(ProjectPaths(tmp_path), {"COMPOSE_PROFILES": "tls,practice,celery", "PORT": "9123"}, {})
    plain = {name: value for name, value in os.environ.items() if name not in settings}
    command = [*program, "config"]
    done = subprocess.run(command, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    parsed = yaml.safe_load(done.stdout)["services"]
    assert sorted(parsed) == sorted(SERVICES)
    assert "9123" in json.dumps(parsed["api-server"]["ports"])
    # only the services that need them have the secrets
    for secret in SECRETS:
        assert {name for name, service in parsed.items() if settings[secret] in json.dumps(service)} == NEEDS[secret]
    assert api_server.OWN_NAME in json.dumps(parsed["api-server"]["networks"])
