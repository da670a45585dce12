"""The application behind Airflow's own sign-in: its real dependency, its real auth manager, its real tokens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from numerai_pipeline.dag.leaderboard_app import create_app
from numerai_pipeline.dag.leaderboard_links import ADDRESS, LeaderboardLink, application
from numerai_pipeline.dag.model_operator import ModelOperator
from tests.generated_run import DAG_RUN, make_run
from tests.samples import ROOT

pytestmark = pytest.mark.slow

RUN = "api/runs/1335/f09bf676d967"


@pytest.fixture(scope="module")
def token() -> str:
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.utils.db import initdb

    initdb()  # its tables hold the revoked tokens
    manager = init_auth_manager()
    return manager.generate_jwt(SimpleAuthManagerUser(username="admin", role="VIEWER"))


@pytest.fixture
def signed_out() -> TestClient:
    return TestClient(create_app(), base_url="http://testserver")


@pytest.fixture
def client(token: str) -> TestClient:
    return TestClient(create_app(), headers={"Authorization": f"Bearer {token}"})


def test_routes_without_sign_in_answer_401(signed_out: TestClient, token: str) -> None:
    app = create_app()
    routes = app.routes
    assert len(routes) == 7
    for route in routes:
        assert isinstance(route, APIRoute), f"{route} is no route that can ask for a signed-in user"
        path = route.path.format(round_name="1335", run="f09bf676d967", name="leaderboard.js")
        for method in route.methods:
            answer = signed_out.request(method, path, params={"dag": "x", "run": "y"})
            assert answer.status_code == 401, path
            assert answer.json() == {"detail": "Not authenticated"}


def test_routes_invalid_token_answers_403(signed_out: TestClient, token: str) -> None:
    assert signed_out.get("/api/runs", headers={"Authorization": f"Bearer {token}x"}).status_code == 403
    signed_out.cookies.set("_token", "x.y.z")
    assert signed_out.get("/").status_code == 403


def test_page_cookie_with_token_is_accepted(signed_out: TestClient, token: str) -> None:
    signed_out.cookies.set("_token", token)
    answer = signed_out.get("/")
    assert answer.status_code == 200
    assert "<h1>Leaderboard</h1>" in answer.text


def test_application_documentation_pages_answer_404(client: TestClient) -> None:
    assert [client.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3


@pytest.mark.parametrize(
    "path",
    [
        "api/runs/1335/000000000000",
        "api/runs/../1335",
        "api/runs/..%2F..%2Fetc/f09bf676d967",
        "api/runs/%2e%2e/f09bf676d967",
        "api/runs/1335/%2e%2e",
        "api/runs/1335/..%2Ff09bf676d967",
        "api/runs/1335/f09bf676d967%00",
        "api/runs/1335/f09bf676d967%0A",
        "api/runs/1335/f09bf676d967/..",
        f"{RUN}/embeddings/..%2F..%2Ftraining",
        f"{RUN}/embeddings/%2e%2e",
        f"{RUN}/embeddings/perplexity_99",
        "assets/..%2Fapp.py",
        "assets/%2e%2e%2fapp.py",
        "assets/index.html",
        "assets/echarts%2FLICENSE",
        "assets/%2Fetc%2Fpasswd",
    ],
)
def test_run_route_invalid_path_answers_404(client: TestClient, tmp_path: Path, path: str) -> None:
    make_run(tmp_path / "data")
    assert client.get(f"/{RUN}").status_code == 200
    assert client.get(f"/{path}").status_code == 404


def test_run_routes_finished_run_return_board_and_embeddings(client: TestClient, tmp_path: Path) -> None:
    make_run(tmp_path / "data")
    assert [run["round"] for run in client.get("/api/runs").json()] == ["1335"]
    board = client.get(f"/{RUN}").json()
    assert len(board["models"]) == 13
    rows = client.get(f"/{RUN}/embeddings").json()
    points = client.get(f"/{RUN}/embeddings/{board['embeddings'][0]}").json()
    assert len(points["x"]) == len(rows["era"]) > 2_900


def test_embeddings_route_without_tables_names_the_missing_file(client: TestClient, tmp_path: Path) -> None:
    make_run(tmp_path / "data", tables=False)
    answer = client.get(f"/{RUN}/embeddings")
    assert answer.status_code == 404
    assert "training.parquet" in answer.json()["detail"]


def test_dag_run_route_known_run_returns_its_directory(client: TestClient, tmp_path: Path) -> None:
    layout = make_run(tmp_path / "data", tables=False)
    found = client.get("/api/dag-run", params={"dag": DAG_RUN.dag, "run": DAG_RUN.run})
    assert found.json() == {"round": "1335", "run": layout.directory.name}
    assert client.get("/api/dag-run", params={"dag": DAG_RUN.dag, "run": "../x"}).status_code == 404


def test_responses_security_headers_are_strict(client: TestClient) -> None:
    for path in ("/", "/api/runs", "/assets/leaderboard.js", "/api/runs/1/2"):
        headers = client.get(path).headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        cached = "private, max-age=31536000, immutable" if path.startswith("/assets") else "no-store"
        assert headers["cache-control"] == cached


def test_plugin_application_is_served_by_airflow(token: str, tmp_path: Path) -> None:
    from airflow import plugins_manager
    from airflow.api_fastapi.app import init_plugins
    from fastapi import FastAPI

    make_run(tmp_path / "data", tables=False)
    root = FastAPI()
    init_plugins(root)
    client = TestClient(root)
    assert client.get(f"/{ADDRESS}").status_code == 401
    client.headers["Authorization"] = f"Bearer {token}"
    assert "<h1>Leaderboard</h1>" in client.get(f"/{ADDRESS}").text
    assert client.get(f"/{ADDRESS}{RUN}").json()["round"] == "1335"
    told = next(plugin for plugin in plugins_manager.get_plugin_info() if plugin["name"] == "numerai")
    assert {view["destination"] for view in told["external_views"]} == {"nav", "dag_run"}
    assert all(view["href"].startswith(ADDRESS) for view in told["external_views"])
    assert plugins_manager.get_plugin_info()  # what Airflow's page of plugins is made of
    assert callable(application)


def test_model_task_has_a_link_to_its_row(monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow.dag_processing.dagbag import DagBag
    from airflow.serialization.serialized_objects import DagSerialization

    # as the API server reads DAGs; a run in this process, in an earlier test, has Airflow leave the links out for good
    monkeypatch.setattr(DagSerialization, "_load_operator_extra_links", True)

    dag = DagBag(ROOT / "dags", bundle_name="dags-folder").dags["numerai_tournament"]
    task = dag.task_dict["svm"]
    assert isinstance(task, ModelOperator)
    (link,) = task.operator_extra_links
    assert isinstance(link, LeaderboardLink)
    key: object = None
    assert link.get_link(task, ti_key=key) == ""  # type: ignore[arg-type]
    task.run_directory = "rounds/1335/f09bf676d967"
    address = link.get_link(task, ti_key=key)  # type: ignore[arg-type]
    assert address == "numerai/leaderboard/?round=1335&run=f09bf676d967&model=svm"
    kept = DagSerialization.from_dict(DagSerialization.to_dict(dag)).task_dict["svm"]
    assert "Leaderboard" in kept.extra_links


def test_plugin_import_loads_no_libraries_of_tasks() -> None:
    script = (
        "import json, sys; sys.path[:0] = ['plugins'];"
        "import airflow.sdk, airflow.plugins_manager, airflow.timetables.base;"
        "before = set(sys.modules); import numerai_plugin; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(answer.stdout.splitlines()[-1]))
    assert "numerai_pipeline.dag.leaderboard_links" in loaded
    assert "numerai_pipeline.dag.leaderboard_app" not in loaded
    assert loaded.isdisjoint({"pandas", "pyarrow", "numpy", "fastapi", "numerapi"})


def test_create_app_imports_no_table_libraries() -> None:
    script = (
        "import sys; sys.path[:0] = ['plugins'];"
        "from numerai_pipeline.dag.leaderboard_app import create_app; create_app();"
        "print(sorted({'pyarrow', 'pandas'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    answer = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    assert answer.stdout.splitlines()[-1] == "[]"
