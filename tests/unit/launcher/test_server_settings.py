"""The server's .env: fresh secrets, for its owner alone, and never touched again."""

from __future__ import annotations

import base64
import pwd
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from launcher import server_settings
from launcher.checkout import Checkout
from launcher.errors import LauncherError, UsageError
from launcher.server_settings import SECRETS
from tests.samples import ROOT

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    shutil.copy2(ROOT / ".env.example", tmp_path)
    return Checkout(tmp_path)


def test_it_is_made_for_its_owner_alone_whatever_the_umask(checkout: Checkout) -> None:
    settings = server_settings.write_first(checkout, {}, {})
    assert stat.S_IMODE(checkout.env_file.stat().st_mode) == 0o600
    assert settings == server_settings.load(checkout)
    assert settings["NUMERAI_DATA_DIR"] == settings["DATA_VOLUME"] == str(checkout.root / "server-data")
    assert len(base64.urlsafe_b64decode(settings["FERNET_KEY"])) == 32
    assert settings["BASE_URL"] == f"http://127.0.0.1:{settings['PORT']}"


def test_secrets_are_long_and_never_the_same(checkout: Checkout, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Checkout(tmp_path_factory.mktemp("other"))
    shutil.copy2(ROOT / ".env.example", other.root)
    one, two = (server_settings.write_first(each, {}, {}) for each in (checkout, other))
    secrets = [settings[name] for settings in (one, two) for name in SECRETS]
    assert len(set(secrets)) == 2 * len(SECRETS)
    assert min(map(len, secrets)) >= 24
    assert one["COMPOSE_PROJECT_NAME"] != two["COMPOSE_PROJECT_NAME"]


def test_one_that_is_there_is_never_written_over(checkout: Checkout) -> None:
    checkout.env_file.write_text("MINE=1\n")
    with pytest.raises(FileExistsError):
        server_settings.write_first(checkout, {}, {})
    assert checkout.env_file.read_text() == "MINE=1\n"


def test_it_takes_what_was_chosen_but_no_secret_from_the_shell(checkout: Checkout) -> None:
    shell = {"POSTGRES_IMAGE": "here", "NUMERAI_KEEP_DAYS": "9", "ADMIN_PASSWORD": "admin", "PATH": "/bin", "PORT": "1"}
    settings = server_settings.write_first(checkout, {"PORT": "9999", "NUMERAI_DATA_DIR": "/srv/numerai"}, shell)
    assert settings["POSTGRES_IMAGE"] == "here"
    assert settings["NUMERAI_KEEP_DAYS"] == "9"
    assert settings["PORT"] == "9999"
    assert settings["DATA_VOLUME"] == "/srv/numerai"
    assert settings["ADMIN_PASSWORD"] != "admin"
    assert "PATH" not in settings


@pytest.mark.parametrize("value", ["a\nb", ' "quoted"', "'quoted'"])
def test_a_value_that_compose_would_read_differently_is_refused(checkout: Checkout, value: str) -> None:
    with pytest.raises(UsageError, match="one line, without quotes"):
        server_settings.write_first(checkout, {"NUMERAI_OWNER": value}, {})
    assert not checkout.env_file.exists()


def test_what_is_missing_or_quoted_is_named(checkout: Checkout) -> None:
    with pytest.raises(LauncherError, match="no server in this checkout"):
        server_settings.load(checkout)
    server_settings.write_first(checkout, {}, {})
    text = checkout.env_file.read_text()
    checkout.env_file.write_text(text.replace("FERNET_KEY=", "FERNET_KEY=\n# "))
    with pytest.raises(LauncherError, match=r"\.env: FERNET_KEY is not set"):
        server_settings.load(checkout)
    checkout.env_file.write_text(text.replace("BIND=127.0.0.1", 'BIND="127.0.0.1"'))
    with pytest.raises(LauncherError, match="BIND: write the value without quotes"):
        server_settings.load(checkout)


@pytest.mark.parametrize(
    ("group", "within"),
    [
        (1001, 0),  # the user's own
        (100104, 105),  # that of a host that has a group `docker`, of number 105
        (100000, 1),
        (165535, 65536),
        (300000, 65537),  # the second range goes on where the first ends
        (165536, 0),
        (200000, 0),  # somebody else's
    ],
)
def test_a_rootless_engine_has_groups_of_its_own(group: int, within: int) -> None:
    anna = pwd.struct_passwd(("anna", "x", 1001, 1001, "", "/home/anna", "/bin/sh"))
    ranges = "# made by useradd\nben:200000:65536\nanna:100000:65536\n1001:300000:10\nanna:unreadable\n"
    assert server_settings.group_within(group, anna, ranges) == within


def test_the_group_of_an_engine_that_is_not_rootless_is_its_sockets(tmp_path: Path) -> None:
    socket = tmp_path / "docker.sock"
    socket.touch()
    found = socket.stat()
    assert server_settings.socket_group(socket) == (found.st_gid if found.st_uid == 0 else 0)
