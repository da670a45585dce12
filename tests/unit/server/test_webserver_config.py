"""The settings of Flask-AppBuilder for single sign-on; the package itself is only in the server's image."""

from __future__ import annotations

import runpy
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.samples import ROOT


@pytest.fixture(autouse=True)
def constants(monkeypatch: pytest.MonkeyPatch) -> None:
    constants: Any = ModuleType("flask_appbuilder.const")
    constants.AUTH_OAUTH = 4
    monkeypatch.setitem(sys.modules, "flask_appbuilder", ModuleType("flask_appbuilder"))
    monkeypatch.setitem(sys.modules, "flask_appbuilder.const", constants)


def settings() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "server" / "webserver_config.py"))


def test_without_a_provider_users_sign_in_by_password(monkeypatch: pytest.MonkeyPatch) -> None:
    # Compose passes empty variables
    monkeypatch.setenv("OIDC_METADATA_URL", "")
    monkeypatch.setenv("OIDC_ROLES", "")
    assert "AUTH_TYPE" not in settings()


def test_provider_and_roles_are_those_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "METADATA_URL": "https://sso.example.org/.well-known/openid-configuration",
        "CLIENT_ID": "airflow",
        "CLIENT_SECRET": "s3cr3t",
        "SCOPE": "",
        "ROLES": '{"numerai-ops": ["Op"]}',
        "DEFAULT_ROLE": "",
    }.items():
        monkeypatch.setenv(f"OIDC_{name}", value)
    found = settings()
    assert (found["AUTH_TYPE"], found["AUTH_USER_REGISTRATION_ROLE"]) == (4, "Public")
    assert (found["AUTH_ROLES_MAPPING"], found["AUTH_ROLES_SYNC_AT_LOGIN"]) == ({"numerai-ops": ["Op"]}, True)
    [provider] = found["OAUTH_PROVIDERS"]
    assert provider["remote_app"] == {
        "client_id": "airflow",
        "client_secret": "s3cr3t",
        "server_metadata_url": "https://sso.example.org/.well-known/openid-configuration",
        "client_kwargs": {"scope": "openid email profile"},
    }
    monkeypatch.setenv("OIDC_ROLES", "")
    assert settings()["AUTH_ROLES_SYNC_AT_LOGIN"] is False
