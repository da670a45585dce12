"""The connection type *Numerai*: its form and its *Test*, by Airflow's API, against a simulated tournament."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from launcher.local_airflow import airflow_environment
from launcher.paths import ProjectPaths
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag.credentials import load_credentials
from numerai_pipeline.dag.numerai_hook import NumeraiHook
from practice import accounts
from practice.model import SeasonSize
from practice.season import Season
from practice.server import PracticeServer, running
from tests.samples import ROOT

KEYS = ("PUBLIC-ID-OF-A-FORM", "secret-key-of-a-form")
SIZE = SeasonSize(rows_per_era=20, train_eras=4, validation_eras=10, small=4, medium=6, all_features=8)
Press = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def client() -> Iterator[TestClient]:
    """Airflow's API, signed in as an administrator."""
    from airflow.api_fastapi.app import create_app
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.utils.db import initdb

    initdb()
    app = create_app(apps="core")
    token = app.state.auth_manager.generate_jwt(SimpleAuthManagerUser(username="admin", role="ADMIN"))
    with TestClient(app, headers={"Authorization": f"Bearer {token}"}) as client:
        yield client


@pytest.fixture
def season(tmp_path: Path) -> Season:
    return Season(tmp_path / "season", SIZE)


@pytest.fixture
def server(season: Season) -> Iterator[PracticeServer]:
    with running(season, [accounts.Account.of(":".join(KEYS), ["alpha", "beta"])]) as server:
        yield server


@pytest.fixture
def press_test(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> Press:
    """Press *Test* on the form of a connection with these fields."""
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")

    def press(**fields: Any) -> dict[str, Any]:
        body = {"connection_id": "numerai_default", "conn_type": "numerai", "login": KEYS[0], "password": KEYS[1]}
        answer = client.post("/api/v2/connections/test", json=body | fields)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        assert KEYS[1] not in json.dumps(found)
        return found

    return press


def test_form_has_keys_and_address_and_hides_the_rest(client: TestClient) -> None:
    types = {each["connection_type"]: each for each in client.get("/ui/connections/hook_meta").json()}
    form = types["numerai"]
    assert form["hook_name"] == "Numerai"
    assert not form["extra_fields"]
    fields = {name: field for name, field in form["standard_fields"].items() if field is not None}
    titles = {name: field["title"] for name, field in fields.items() if not field["hidden"]}
    assert titles == {"login": "Public id", "password": "Secret key", "host": "API address"}
    assert {name for name, field in fields.items() if field["hidden"]} == {"port", "url_schema"}
    assert "generic" in types


def test_connection_test_with_good_keys_lists_the_models(server: PracticeServer, press_test: Press) -> None:
    assert press_test(host=server.address) == {
        "status": True,
        "message": f"{server.address} accepts the keys; models of the account: alpha, beta",
    }
    assert server.requests.entries(on="graphql")


def test_connection_test_without_an_address_asks_the_server_of_the_settings(
    server: PracticeServer, press_test: Press, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_API_URL", server.address)
    load_settings.cache_clear()
    assert press_test(host="")["status"] is True


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"password": "another-key"}, "the Numerai keys were refused"),
        ({"password": ""}, "the login of the connection is set and the password of the connection is not"),
        ({"login": "", "password": ""}, "no keys: set its public id and its secret key"),
    ],
)
def test_connection_test_with_wrong_keys_fails(
    server: PracticeServer, press_test: Press, fields: dict[str, str], says: str
) -> None:
    found = press_test(host=server.address, **fields)
    assert found["status"] is False
    assert says in found["message"]
    assert "another-key" not in found["message"]


@pytest.mark.parametrize("scope", ["upload_submission", "read_submission_info", "read_user_info"])
def test_connection_test_names_a_missing_scope(season: Season, press_test: Press, scope: str) -> None:
    scopes = [other for other in accounts.SCOPES if other != scope]
    with running(season, [accounts.Account.of(":".join(KEYS), ["alpha"], scopes)]) as server:
        found = press_test(host=server.address)
    assert found["status"] is False
    assert f"lack the scope {scope}" in found["message"]


@pytest.mark.parametrize(
    ("address", "says"),
    [("api-tournament.numer.ai", "is not an http or https address"), ("http://127.0.0.1:9", "127.0.0.1:9")],
)
def test_connection_test_with_a_wrong_address_names_it(press_test: Press, address: str, says: str) -> None:
    found = press_test(host=address)
    assert found["status"] is False
    assert says in found["message"]


def test_connection_test_is_refused_where_it_is_disabled(client: TestClient) -> None:
    body = {"connection_id": "numerai_default", "conn_type": "numerai"}
    assert client.post("/api/v2/connections/test", json=body).status_code == 403


def test_hook_of_a_connection_is_the_type_s(server: PracticeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "numerai", "login": KEYS[0], "password": KEYS[1], "host": server.address}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_DEFAULT", json.dumps(connection))
    hook = NumeraiHook.get_hook("numerai_default")
    assert isinstance(hook, NumeraiHook)
    assert sorted(hook.get_conn().numerapi.get_models()) == ["alpha", "beta"]


def test_credentials_for_another_address_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "numerai", "login": KEYS[0], "password": KEYS[1], "host": "https://elsewhere.example/"}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_DEFAULT", json.dumps(connection))
    with pytest.raises(BadInputError, match=r"for https://elsewhere\.example, and not for .*NUMERAI_API_URL") as raised:
        load_credentials("numerai")
    assert KEYS[1] not in str(raised.value)
    monkeypatch.setenv("NUMERAI_API_URL", "https://elsewhere.example")
    load_settings.cache_clear()
    assert load_credentials("numerai") == KEYS
    # of another type, the host was never read
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_DEFAULT", json.dumps(connection | {"conn_type": "generic"}))
    monkeypatch.delenv("NUMERAI_API_URL")
    load_settings.cache_clear()
    assert load_credentials("numerai") == KEYS


PRINT_PROVIDER = """
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
print(len(manager.providers), manager.hooks["numerai"])
"""


def test_airflow_of_the_launcher_finds_the_connection_type(tmp_path: Path) -> None:
    environment = airflow_environment(ProjectPaths(ROOT), port=8080, practice_url=None, scheduled=False)
    assert environment["AIRFLOW__CORE__TEST_CONNECTION"] == "Enabled"
    environment |= {"AIRFLOW_HOME": str(tmp_path), "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{tmp_path}/a.db"}
    answer = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", PRINT_PROVIDER],
        cwd=tmp_path,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    number, hook = answer.stdout.splitlines()[-1].split(" ", 1)
    assert int(number) > 1
    assert "NumeraiHook" in hook
    assert "connection_testable=True" in hook


def test_image_of_the_server_has_the_plugins_on_its_path() -> None:
    dockerfile = (ROOT / "server" / "airflow" / "Dockerfile").read_text()
    assert "PYTHONPATH=/opt/numerai:/opt/numerai/plugins" in dockerfile
    folder = ROOT / "plugins" / "numerai_airflow_provider-0.1.0.dist-info"
    assert (folder / "entry_points.txt").is_file()
