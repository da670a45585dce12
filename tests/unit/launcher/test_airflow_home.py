from __future__ import annotations

import contextlib
import json
import socket
import sqlite3
from typing import TYPE_CHECKING

import pytest

from launcher import practice_season
from launcher.airflow_home import airflow_environment, choose_port, is_free, let_read_while_written
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


def test_airflow_s_database_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    checkout.airflow_home.mkdir(parents=True)
    let_read_while_written(checkout)
    database = checkout.airflow_home / "airflow.db"
    with (
        contextlib.closing(sqlite3.connect(database)) as writer,
        contextlib.closing(sqlite3.connect(database)) as reader,
    ):
        writer.execute("CREATE TABLE runs (id)")
        writer.execute("INSERT INTO runs VALUES (1)")
        writer.commit()
        rows = reader.execute("SELECT id FROM runs UNION SELECT 2")
        assert rows.fetchone() == (1,)  # and more to come
        writer.execute("INSERT INTO runs VALUES (3)")
        writer.commit()
