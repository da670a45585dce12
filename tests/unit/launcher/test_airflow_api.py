"""The client of Airflow's REST API, against recorded forms of its responses."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from launcher.airflow_api import AirflowApi
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

NOW = datetime(2026, 8, 15, 12, tzinfo=UTC)


class Server:
    """An Airflow that gives prepared responses: path → a response, or several in turn, of which the last is kept."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.responses: dict[str, list[httpx.Response]] = {}
        self.token = "first"

    def add(self, path: str, *bodies: Any, status: int = 200) -> None:
        self.responses[path] = [httpx.Response(status, json=body) for body in bodies]

    def handle(self, request: httpx.Request) -> httpx.Response:
        if request.url.path == "/auth/token":
            return httpx.Response(201, json={"access_token": self.token})
        self.requests.append(request)
        if request.headers["authorization"] != f"Bearer {self.token}":
            return httpx.Response(401)
        prepared = self.responses.get(request.url.path.removeprefix("/api/v2/"), [httpx.Response(404, json={})])
        return prepared.pop(0) if len(prepared) > 1 else prepared[0]


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def api(server: Server, tmp_path: Path) -> AirflowApi:
    (tmp_path / "passwords").write_text(json.dumps({"admin": "secret"}))
    api = AirflowApi("http://airflow", "admin", tmp_path / "passwords", retry_seconds=0)
    api._http = httpx.Client(base_url="http://airflow", transport=httpx.MockTransport(server.handle))
    return api


def test_api_signs_in_again_after_its_token_expired(server: Server, api: AirflowApi) -> None:
    server.add("dags/d", {"dag_id": "d"})
    assert api.dag("d") == {"dag_id": "d"}
    server.token = "second"
    assert api.dag("d") == {"dag_id": "d"}
    assert api.dag("unknown") is None


def test_api_rejection_has_the_reason(server: Server, api: AirflowApi) -> None:
    server.add("dags/d/dagRuns", {"detail": "conf is invalid"}, status=422)
    with pytest.raises(LauncherError, match="rejected POST /api/v2/dags/d/dagRuns: conf is invalid"):
        api.trigger("d", "r", {})
    server.add("dags/d/dagRuns", {}, status=409)
    api.trigger("d", "r", {})


def test_api_unreachable_names_the_address(server: Server, api: AirflowApi) -> None:
    server.add("dags/d", {}, status=503)
    with pytest.raises(LauncherError, match="Airflow is unreachable at http://airflow: Server error '503"):
        api.dag("d")


def test_api_without_a_password_names_the_file(api: AirflowApi, tmp_path: Path) -> None:
    (tmp_path / "passwords").unlink()
    with pytest.raises(LauncherError, match="the password of Airflow's user admin is not in"):
        api.dag("d")


def test_api_runs_reads_all_pages(server: Server, api: AirflowApi) -> None:
    pages = [{"dag_runs": [{"dag_run_id": name}], "total_entries": 2} for name in "ab"]
    server.add("dags/d/dagRuns", *pages)
    assert [run["dag_run_id"] for run in api.runs("d", run_type="backfill")] == ["a", "b"]
    assert [request.url.params["offset"] for request in server.requests] == ["0", "1"]
    assert server.requests[0].url.params["run_type"] == "backfill"


def test_api_task_order_puts_each_task_after_its_upstream_tasks(server: Server, api: AirflowApi) -> None:
    edges = {
        "ensemble": ["submit"],
        "svm": ["ensemble"],
        "submit": [],
        "xgboost": ["ensemble"],
        "unzip": ["svm", "xgboost"],
    }
    server.add("dags/d/tasks", {"tasks": [{"task_id": a, "downstream_task_ids": b} for a, b in edges.items()]})
    order = api.task_order("d")
    assert sorted(order) == sorted(edges)
    assert all(order.index(task) < order.index(below) for task in edges for below in edges[task])


@pytest.mark.parametrize(
    ("value", "expected"), [('{"round": 1}', {"round": 1}), ("text", "text"), ({"a": 1}, {"a": 1}), (None, None)]
)
def test_api_return_value_is_decoded(server: Server, api: AirflowApi, value: Any, expected: Any) -> None:
    server.add("dags/d/dagRuns/r/taskInstances/t/xcomEntries/return_value", {"value": value})
    assert api.return_value("d", "r", "t") == expected
    assert api.return_value("d", "r", "none") is None


def test_api_log_events_are_objects(server: Server, api: AirflowApi) -> None:
    server.add("dags/d/dagRuns/r/taskInstances/t/logs/1", {"content": [{"event": "one"}, "two"]})
    assert api.log_events("d", "r", "t", 1) == [{"event": "one"}, {"event": "two"}]
    assert api.log_events("d", "r", "t", 2) == []


def test_api_waits_until_the_dag_is_parsed_again(server: Server, api: AirflowApi) -> None:
    def parsed(at: datetime) -> dict[str, Any]:
        return {"last_parsed_time": at.isoformat(), "file_token": "token"}

    server.add("dags/d", parsed(NOW - timedelta(seconds=1)), parsed(NOW))
    server.add("parseDagFile/token", None, status=201)
    api.wait_until_parsed("d", NOW, lambda: True, 30)
    assert [request.method for request in server.requests].count("PUT") == 1


def test_api_import_error_of_the_dag_is_reported(server: Server, api: AirflowApi) -> None:
    server.add("importErrors", {"import_errors": [{"filename": "dag.py", "stack_trace": "SyntaxError"}]})
    with pytest.raises(LauncherError, match="the DAG cannot be imported") as raised:
        api.wait_until_parsed("d", NOW, lambda: True, 30)
    assert raised.value.details == ("dag.py:\nSyntaxError",)


@pytest.mark.parametrize(
    ("call", "method", "path", "body"),
    [
        (lambda api: api.fail_run("d", "r", note="n"), "PATCH", "dags/d/dagRuns/r", {"state": "failed", "note": "n"}),
        (lambda api: api.set_paused("d", paused=True), "PATCH", "dags/d", {"is_paused": True}),
        (lambda api: api.cancel_backfill(7), "PUT", "backfills/7/cancel", None),
    ],
)
def test_api_requests_have_their_bodies(
    server: Server, api: AirflowApi, call: Callable[[AirflowApi], None], method: str, path: str, body: Any
) -> None:
    server.add(path, {})
    call(api)
    request = server.requests[0]
    assert (request.method, request.url.path) == (method, f"/api/v2/{path}")
    assert (json.loads(request.content) if request.content else None) == body


def test_api_creates_a_backfill_of_whole_days(server: Server, api: AirflowApi) -> None:
    server.add("backfills", {"id": 7})
    assert api.create_backfill("d", NOW.date(), NOW.date(), {"submit": False}, at_once=2) == 7
    body = json.loads(server.requests[0].content)
    assert (body["from_date"], body["to_date"]) == ("2026-08-15T00:00:00+00:00", "2026-08-15T23:59:59.999999+00:00")
    assert (body["max_active_runs"], body["dag_run_conf"]) == (2, {"submit": False})


def test_api_pool_that_exists_keeps_its_size(server: Server, api: AirflowApi) -> None:
    server.add("pools", {"name": "p"}, status=201)
    api.ensure_pool("p", 2, "cores")
    server.add("pools", {"detail": "exists"}, status=409)
    api.ensure_pool("p", 9, "cores")
    assert [request.method for request in server.requests] == ["POST", "POST"]


def test_api_is_healthy_only_with_all_components(server: Server, api: AirflowApi) -> None:
    components = {name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor")}
    health = httpx.MockTransport(lambda _: httpx.Response(200, json=components))
    api._http = httpx.Client(base_url="http://airflow", transport=health)
    assert api.wait_until_healthy(lambda: True, 0)
    components["scheduler"] = {"status": "unhealthy"}
    assert not api.wait_until_healthy(lambda: False, 30)
