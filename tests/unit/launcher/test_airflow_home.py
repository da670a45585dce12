from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from launcher import practice_season
from launcher.airflow_home import airflow_environment, choose_port, is_free
from launcher.checkout import ROOT, Checkout
from numerai_pipeline.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_the_next_free_port_stands_in_for_one_that_is_taken(taken_port: int) -> None:
    assert not is_free(taken_port)
    chosen = choose_port(taken_port)
    assert chosen > taken_port
    assert choose_port(chosen) == chosen
    assert choose_port(chosen, but_not={chosen}) > chosen


def test_the_three_settings_that_name_the_port_agree(tmp_path: Path) -> None:
    environment = airflow_environment(Checkout(tmp_path), port=8123, practice_url=None, scheduled=True)
    assert environment["AIRFLOW__API__PORT"] == "8123"
    assert environment["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8123"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_the_checkout_is_the_bundle(tmp_path: Path) -> None:
    environment = airflow_environment(Checkout(tmp_path), port=8080, practice_url=None, scheduled=True)
    [bundle] = json.loads(environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundle["kwargs"]["path"] == str(tmp_path / "dags")
    assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(tmp_path / "plugins")


def test_what_airflow_imports_stays_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = airflow_environment(Checkout(tmp_path), port=8080, practice_url=None, scheduled=True)
    (tmp_path / "plugin.py").touch()
    subprocess.run([sys.executable, "-c", "import plugin"], cwd=tmp_path, env=os.environ | environment, check=True)
    assert list((tmp_path / "__pycache__").glob("plugin.*.pyc"))


def test_only_make_up_has_a_schedule_and_only_when_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    unasked = airflow_environment(Checkout(tmp_path), port=8080, practice_url=None, scheduled=True)
    assert unasked["NUMERAI_SCHEDULE"] == "off"
    monkeypatch.setenv("NUMERAI_SCHEDULE", "tue,sat")
    asked = airflow_environment(Checkout(tmp_path), port=8080, practice_url="http://127.0.0.1:1", scheduled=False)
    assert asked["NUMERAI_SCHEDULE"] == "off"
    assert asked["NUMERAI_PRACTICE_URL"] == "http://127.0.0.1:1"
    kept_up = airflow_environment(Checkout(tmp_path), port=8080, practice_url=None, scheduled=True)
    assert kept_up["NUMERAI_SCHEDULE"] == "tue,sat"


def test_airflow_has_the_keys_of_the_practice_account_and_only_these(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connection(practice_url: str | None) -> str | None:
        environment = airflow_environment(Checkout(tmp_path), port=8080, practice_url=practice_url, scheduled=True)
        assert "AIRFLOW_CONN_NUMERAI_DEFAULT" not in environment
        return environment.get("AIRFLOW_CONN_NUMERAI_PRACTICE")

    assert connection(None) is None
    ours = json.loads(connection("http://127.0.0.1:1") or "")
    keys = (practice_season.PUBLIC_ID, practice_season.KEY)
    assert (ours["conn_type"], ours["login"], ours["password"]) == ("generic", *keys)
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_PRACTICE", "generic://me:mine@")
    assert connection("http://127.0.0.1:1") == "generic://me:mine@"


def test_the_practice_account_has_a_model_for_all_of_ours_and_those_of_the_setting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mine=svm,svm=xgboost")
    load_settings.cache_clear()
    models = practice_season.models(Checkout(ROOT))
    assert {"svm", "tpot", "ensemble_geometric_mean", "ensemble_selection", "mine"} <= set(models)
    assert len(set(models)) == len(models)


def test_housekeeping_is_scheduled_only_by_make_up_and_only_when_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def setting(*, scheduled: bool) -> str:
        environment = airflow_environment(Checkout(tmp_path), port=8080, practice_url=None, scheduled=scheduled)
        return environment["NUMERAI_HOUSEKEEPING"]

    assert setting(scheduled=True) == "false"
    monkeypatch.setenv("NUMERAI_HOUSEKEEPING", "true")
    assert setting(scheduled=True) == "true"
    assert setting(scheduled=False) == "false"


def test_the_users_own_data_directory_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMERAI_DATA_DIR", str(tmp_path / "elsewhere"))
    environment = airflow_environment(Checkout(tmp_path), port=8080, practice_url=None, scheduled=False)
    assert environment["NUMERAI_DATA_DIR"] == str(tmp_path / "elsewhere")


BACKFILL_AND_ANOTHER = """
import contextlib, sqlite3, sys
from sqlalchemy import text
from airflow.settings import Session, initialize
initialize()
with Session() as session:
    session.execute(text("CREATE TABLE runs (id)"))
    session.commit()
    with contextlib.closing(sqlite3.connect(sys.argv[1], timeout=0)) as other, session.begin_nested():
        session.execute(text("SELECT id FROM runs")).all()
        with contextlib.suppress(sqlite3.OperationalError):  # it would wait for its turn
            other.execute("INSERT INTO runs VALUES (1)")
            other.commit()
        session.execute(text("INSERT INTO runs VALUES (2)"))
    session.commit()
    print("rows:", session.execute(text("SELECT id FROM runs")).all())
"""


def test_a_savepoint_in_airflow_s_database_writes_though_another_process_wrote(tmp_path: Path) -> None:
    """What `airflow backfill create` does while the scheduler works."""
    checkout = Checkout(tmp_path)
    checkout.airflow_home.mkdir(parents=True)
    environment = airflow_environment(checkout, port=8080, practice_url=None, scheduled=False)
    environment["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(ROOT / "plugins")
    command = [sys.executable, "-c", BACKFILL_AND_ANOTHER, str(checkout.airflow_home / "airflow.db")]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert "rows: [(2,)]" in done.stdout, done.stderr
