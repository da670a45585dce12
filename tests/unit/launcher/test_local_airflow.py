from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from launcher import simulator
from launcher.local_airflow import airflow_environment, choose_port, is_free
from launcher.paths import ROOT, ProjectPaths
from numerai_pipeline.core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_choose_port_taken_gives_the_next_free_one(taken_port: int) -> None:
    assert not is_free(taken_port)
    chosen = choose_port(taken_port)
    assert chosen > taken_port
    assert choose_port(chosen) == chosen


def test_airflow_environment_has_one_port_in_all_settings(tmp_path: Path) -> None:
    environment = airflow_environment(ProjectPaths(tmp_path), port=8123, practice_url=None, scheduled=True)
    assert environment["AIRFLOW__API__PORT"] == "8123"
    assert environment["AIRFLOW__API__BASE_URL"] == "http://127.0.0.1:8123"
    assert environment["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:8123/execution/"
    assert environment["AIRFLOW__API__HOST"] == "127.0.0.1"


def test_airflow_environment_keeps_the_deployment_of_its_home(tmp_path: Path) -> None:
    def deployment(folder: str) -> str:
        paths = ProjectPaths(tmp_path / folder)
        return airflow_environment(paths, port=8080, practice_url=None, scheduled=True)[
            "AIRFLOW_VAR_NUMERAI_DEPLOYMENT"
        ]

    assert (
        deployment("one") == deployment("one") == (tmp_path / "one" / ".airflow" / "deployment-id").read_text().strip()
    )
    assert deployment("one") != deployment("another")


def test_airflow_environment_has_the_checkout_as_bundle(tmp_path: Path) -> None:
    environment = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=None, scheduled=True)
    [bundle] = json.loads(environment["AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST"])
    assert bundle["kwargs"]["path"] == str(tmp_path / "dags")
    assert environment["AIRFLOW__CORE__PLUGINS_FOLDER"] == str(tmp_path / "plugins")


def test_airflow_environment_keeps_compiled_plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    environment = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=None, scheduled=True)
    (tmp_path / "plugin.py").touch()
    subprocess.run([sys.executable, "-c", "import plugin"], cwd=tmp_path, env=os.environ | environment, check=True)
    assert list((tmp_path / "__pycache__").glob("plugin.*.pyc"))


def test_airflow_environment_has_a_schedule_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    default = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=None, scheduled=True)
    assert default["NUMERAI_SCHEDULE"] == "off"
    monkeypatch.setenv("NUMERAI_SCHEDULE", "tue,sat")
    monkeypatch.setenv("NUMERAI_STABLES", "/etc/stables.yaml")
    unscheduled = airflow_environment(
        ProjectPaths(tmp_path), port=8080, practice_url="http://127.0.0.1:1", scheduled=False
    )
    assert (unscheduled["NUMERAI_SCHEDULE"], unscheduled["NUMERAI_STABLES"]) == ("off", "")
    assert unscheduled["NUMERAI_PRACTICE_URL"] == "http://127.0.0.1:1"
    background = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=None, scheduled=True)
    assert background["NUMERAI_SCHEDULE"] == "tue,sat"
    assert "NUMERAI_STABLES" not in background


def test_airflow_environment_has_only_the_keys_of_the_simulator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def connection(practice_url: str | None) -> str | None:
        environment = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=practice_url, scheduled=True)
        assert "AIRFLOW_CONN_NUMERAI_DEFAULT" not in environment
        return environment.get("AIRFLOW_CONN_NUMERAI_PRACTICE")

    assert connection(None) is None
    ours = json.loads(connection("http://127.0.0.1:1") or "")
    keys = (simulator.PUBLIC_ID, simulator.KEY)
    assert (ours["conn_type"], ours["login"], ours["password"]) == ("generic", *keys)
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_PRACTICE", "generic://me:mine@")
    assert connection("http://127.0.0.1:1") == "generic://me:mine@"


def test_simulator_models_include_ours_and_the_submissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stables.yaml").write_text("stables: [{name: a, submissions: {theirs: svm}}]")
    monkeypatch.setenv("NUMERAI_STABLES", str(tmp_path / "stables.yaml"))
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mine=svm,svm=xgboost")
    load_settings.cache_clear()
    models = simulator.models(ProjectPaths(ROOT))
    ensembles = {f"ensemble_{name}" for name in ("geometric_mean", "fleming", "selection", "gauss_rank")}
    assert {"svm", "tpot", *ensembles, "mine", "theirs"} <= set(models)
    assert len(set(models)) == len(models)


def test_airflow_environment_has_housekeeping_only_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def setting(*, scheduled: bool) -> str:
        environment = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=None, scheduled=scheduled)
        return environment["NUMERAI_HOUSEKEEPING"]

    assert setting(scheduled=True) == "false"
    monkeypatch.setenv("NUMERAI_HOUSEKEEPING", "true")
    assert setting(scheduled=True) == "true"
    assert setting(scheduled=False) == "false"


def test_airflow_environment_keeps_the_data_directory_of_the_user(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_DATA_DIR", str(tmp_path / "elsewhere"))
    environment = airflow_environment(ProjectPaths(tmp_path), port=8080, practice_url=None, scheduled=False)
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
        with contextlib.suppress(sqlite3.OperationalError):  # it would wait for the lock
            other.execute("INSERT INTO runs VALUES (1)")
            other.commit()
        session.execute(text("INSERT INTO runs VALUES (2)"))
    session.commit()
    print("rows:", session.execute(text("SELECT id FROM runs")).all())
"""


def test_savepoint_writes_although_another_process_wrote(tmp_path: Path) -> None:
    """`airflow backfill create` does this while the scheduler runs."""
    paths = ProjectPaths(tmp_path)
    paths.airflow_home.mkdir(parents=True)
    environment = airflow_environment(paths, port=8080, practice_url=None, scheduled=False)
    environment["AIRFLOW__CORE__PLUGINS_FOLDER"] = str(ROOT / "plugins")
    command = [sys.executable, "-c", BACKFILL_AND_ANOTHER, str(paths.airflow_home / "airflow.db")]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert "rows: [(2,)]" in done.stdout, done.stderr
