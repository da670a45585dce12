"""The server's .env: new secrets, readable only by its owner, and never changed again."""

from __future__ import annotations

import base64
import pwd
import re
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from launcher import server_settings
from launcher.errors import LauncherError, UsageError
from launcher.paths import ProjectPaths
from launcher.server_settings import SECRETS
from numerai_pipeline.core.settings import machine_cores
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def paths(tmp_path: Path) -> ProjectPaths:
    shutil.copy2(ROOT / ".env.example", tmp_path)
    return ProjectPaths(tmp_path)


def test_create_env_file_is_readable_only_by_its_owner(paths: ProjectPaths) -> None:
    settings = server_settings.create_env_file(paths, {}, {})
    assert stat.S_IMODE(paths.env_file.stat().st_mode) == 0o600
    assert settings == server_settings.load(paths)
    assert settings["NUMERAI_DATA_DIR"] == settings["DATA_VOLUME"] == str(paths.root / "server-data")
    assert len(base64.urlsafe_b64decode(settings["FERNET_KEY"])) == 32
    assert settings["BASE_URL"] == f"http://127.0.0.1:{settings['PORT']}"
    assert int(settings["AIRFLOW_PARALLELISM"]) == machine_cores() + 8


def test_create_env_file_leaves_eight_tasks_beside_the_models(paths: ProjectPaths) -> None:
    assert server_settings.create_env_file(paths, {"NUMERAI_CORES": "30"}, {})["AIRFLOW_PARALLELISM"] == "38"


def test_create_env_file_generates_long_unique_secrets(
    paths: ProjectPaths, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = ProjectPaths(tmp_path_factory.mktemp("other"))
    shutil.copy2(ROOT / ".env.example", other.root)
    one, two = (server_settings.create_env_file(each, {}, {}) for each in (paths, other))
    secrets = [settings[name] for settings in (one, two) for name in SECRETS]
    assert len(set(secrets)) == 2 * len(SECRETS)
    assert min(map(len, secrets)) >= 24
    assert one["COMPOSE_PROJECT_NAME"] != two["COMPOSE_PROJECT_NAME"]


def test_create_env_file_never_overwrites(paths: ProjectPaths) -> None:
    paths.env_file.write_text("MINE=1\n")
    with pytest.raises(FileExistsError):
        server_settings.create_env_file(paths, {}, {})
    assert paths.env_file.read_text() == "MINE=1\n"


def test_create_env_file_takes_settings_but_no_secret_of_the_shell(paths: ProjectPaths) -> None:
    shell = {"POSTGRES_IMAGE": "here", "NUMERAI_KEEP_DAYS": "9", "ADMIN_PASSWORD": "admin", "PATH": "/bin", "PORT": "1"}
    settings = server_settings.create_env_file(paths, {"PORT": "9999", "NUMERAI_DATA_DIR": "/srv/numerai"}, shell)
    assert settings["POSTGRES_IMAGE"] == "here"
    assert settings["NUMERAI_KEEP_DAYS"] == "9"
    assert settings["PORT"] == "9999"
    assert settings["DATA_VOLUME"] == "/srv/numerai"
    assert settings["ADMIN_PASSWORD"] != "admin"
    assert "PATH" not in settings


@pytest.mark.parametrize("value", ["a\nb", ' "quoted"', "'quoted'"])
def test_create_env_file_rejects_quotes_and_line_ends(paths: ProjectPaths, value: str) -> None:
    with pytest.raises(UsageError, match="one line, without quotes"):
        server_settings.create_env_file(paths, {"NUMERAI_OWNER": value}, {})
    assert not paths.env_file.exists()


def test_load_names_missing_and_quoted_settings(paths: ProjectPaths) -> None:
    with pytest.raises(LauncherError, match="no server in this checkout"):
        server_settings.load(paths)
    server_settings.create_env_file(paths, {}, {})
    text = paths.env_file.read_text()
    paths.env_file.write_text(text.replace("FERNET_KEY=", "FERNET_KEY=\n# "))
    with pytest.raises(LauncherError, match=r"\.env: FERNET_KEY is not set"):
        server_settings.load(paths)
    paths.env_file.write_text(text.replace("BIND=127.0.0.1", 'BIND="127.0.0.1"'))
    with pytest.raises(LauncherError, match="BIND: write the value without quotes"):
        server_settings.load(paths)


def test_load_needs_only_the_brokers_password_on_the_machine_of_a_worker(paths: ProjectPaths) -> None:
    settings = server_settings.create_env_file(paths, {}, {})
    # the documented command
    (pattern,) = re.findall(r"grep -vE '([^']+)' \.env", (ROOT / "docs" / "deployment" / "server.md").read_text())
    lines = [line for line in paths.env_file.read_text().splitlines() if not re.match(pattern, line)]
    paths.env_file.write_text("\n".join(lines))
    loaded = server_settings.load(paths, server_settings.WORKER_SECRETS)
    missing = set(server_settings.SECRETS) - set(server_settings.WORKER_SECRETS)
    assert loaded == settings | dict.fromkeys(missing, server_settings.NO_SECRET)
    with pytest.raises(LauncherError, match="are not set") as refused:
        server_settings.load(paths)
    assert all(name in str(refused.value) for name in missing)


@pytest.mark.parametrize(
    ("group", "within"),
    [
        (1001, 0),  # the user's group
        (100104, 105),  # a host whose group `docker` has id 105
        (100000, 1),
        (165535, 65536),
        (300000, 65537),  # the second range goes on where the first ends
        (165536, 0),
        (200000, 0),  # of another user
    ],
)
def test_group_within_a_rootless_engine_is_translated(group: int, within: int) -> None:
    anna = pwd.struct_passwd(("anna", "x", 1001, 1001, "", "/home/anna", "/bin/sh"))
    ranges = "# made by useradd\nben:200000:65536\nanna:100000:65536\n1001:300000:10\nanna:unreadable\n"
    assert server_settings.group_within(group, anna, ranges) == within


def test_socket_group_of_a_root_engine_is_unchanged(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    found = socket.stat()
    assert server_settings.socket_group(socket) == (found.st_gid if found.st_uid == 0 else 0)
