"""docker-compose.yaml: what every service of a server must have, and that Compose takes it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from launcher.checkout import Checkout
from launcher.compose import find_program
from launcher.processes import Commands
from launcher.server_settings import SECRETS, read_settings, write_first
from numerai_pipeline.settings import DEPRECATED_VARIABLES, Settings
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TEXT = (ROOT / "docker-compose.yaml").read_text()
SERVICES: dict[str, Any] = yaml.safe_load(TEXT)["services"]
ONCE = "airflow-init"
LASTING = sorted(set(SERVICES) - {ONCE})
# Compose v2 alone knows these, and docker-compose 1.29 refuses them
ONLY_V2 = ("name:", "start_interval", "required:", "develop:", "include:", "create_host_path", "pull_policy: build")


@pytest.mark.parametrize("name", LASTING)
def test_every_service_is_watched_started_again_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["healthcheck"]["test"]
    assert service["restart"] == "unless-stopped"
    assert re.fullmatch(r"\$\{[A-Z_]+_MEMORY:-\d+[mg]\}", service["mem_limit"])
    assert service["logging"]["driver"] == "json-file"
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")


def test_what_is_done_once_comes_first_and_is_bounded_too() -> None:
    assert SERVICES[ONCE]["restart"] == "no"
    assert SERVICES[ONCE]["mem_limit"]
    for name in ("api-server", "scheduler", "dag-processor", "triggerer"):
        assert SERVICES[name]["depends_on"] == {ONCE: {"condition": "service_completed_successfully"}}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_every_image_can_be_named(name: str) -> None:
    assert re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-[\w./:-]+\}", SERVICES[name]["image"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_nothing_is_published_beyond_this_machine_by_default(name: str) -> None:
    for published in SERVICES[name].get("ports", []):
        address = re.match(r"\$\{(\w+):-([^}]*)\}:", published)
        assert address, f"{name} publishes {published} on every address"
        # TLS is there for others; whoever turns it on has asked for that
        assert address[2] == "127.0.0.1" or name == "tls"


def test_only_the_proxy_has_the_socket_and_only_what_runs_tasks_has_the_proxy() -> None:
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


def test_no_secret_is_written_down() -> None:
    example = read_settings((ROOT / ".env.example").read_text())
    for name in SECRETS:
        assert example[name] == ""
        unset = {":-"} if name == "REDIS_PASSWORD" else {":?is not in .env - make server writes it"}
        assert set(re.findall(rf"\$\{{{name}([^}}]*)\}}", TEXT)) == unset


def test_every_setting_reaches_airflow_and_is_explained() -> None:
    for variable in [*(f"NUMERAI_{name.upper()}" for name in Settings.model_fields), *DEPRECATED_VARIABLES.values()]:
        assert f"{variable}: ${{{variable}:" in TEXT
    example = read_settings((ROOT / ".env.example").read_text())
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    assert {name for name in used if not name.startswith("NUMERAI_")} - set(example) == {
        # for those with an engine or a database elsewhere
        "ENGINE_ADDRESS",
        "POSTGRES_ADDRESS",
    }
    assert set(example) - used == {"COMPOSE_PROJECT_NAME", "COMPOSE_PROFILES"}


def test_nothing_is_in_it_that_only_one_generation_of_compose_takes() -> None:
    assert [word for word in ONLY_V2 if re.search(rf"^\s*-?\s*{re.escape(word)}", TEXT, re.MULTILINE)] == []
    # 1.29 does not look into a default for another variable
    assert not re.search(r"\$\{[^}]*\$\{", TEXT)


def test_compose_takes_it(tmp_path: Path) -> None:
    program = find_program(Commands())
    if program is None:
        pytest.skip("there is no docker compose on this machine: make test-server installs one")
    shutil.copytree(ROOT / "server", tmp_path / "server", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("docker-compose.yaml", ".env.example"):
        shutil.copy2(ROOT / name, tmp_path)
    settings = write_first(Checkout(tmp_path), {"COMPOSE_PROFILES": "tls,practice,celery", "PORT": "9123"}, {})
    plain = {name: value for name, value in os.environ.items() if name not in settings}
    words = [*program, "config"]
    done = subprocess.run(words, cwd=tmp_path, env=plain, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "variable is not set" not in done.stderr
    taken = yaml.safe_load(done.stdout)["services"]
    assert sorted(taken) == sorted(SERVICES)
    assert "9123" in json.dumps(taken["api-server"]["ports"])
    # secrets go to those who need them
    holders = {name for name, service in taken.items() if settings["ADMIN_PASSWORD"] in json.dumps(service)}
    assert holders == {ONCE}
    assert {name for name, service in taken.items() if settings["FERNET_KEY"] in json.dumps(service)} == {
        ONCE,
        "api-server",
        "scheduler",
        "dag-processor",
        "triggerer",
        "worker",
    }
