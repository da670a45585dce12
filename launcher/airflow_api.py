"""A client of Airflow's REST API, with the calls that the launcher needs."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, date, datetime
from graphlib import TopologicalSorter
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from launcher.errors import LauncherError
from launcher.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

API = "/api/v2"
REQUEST_SECONDS = 20.0
# an API server on a busy machine may be unreachable for a while
RETRY_SECONDS = 60.0
# Airflow's default limit of a list
_PAGE = 50
UNFINISHED = ("queued", "running")
COMPONENTS = ("metadatabase", "scheduler", "dag_processor")


class AirflowApi:
    """A signed-in client of one Airflow; its methods raise a LauncherError when Airflow rejects a request."""

    def __init__(self, address: str, user: str, password_file: Path, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self.address = address
        self._user = user
        self._password_file = password_file
        self._retry_seconds = retry_seconds
        self._token = ""
        # proxies of the environment are not for 127.0.0.1
        self._http = httpx.Client(base_url=address, timeout=REQUEST_SECONDS, trust_env=False)

    def is_healthy(self) -> bool:
        """Whether the database, the scheduler and the DAG processor are all healthy."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            components = self._http.get(f"{API}/monitor/health", timeout=5).json()
            return all(components.get(component, {}).get("status") == "healthy" for component in COMPONENTS)
        return False

    def wait_until_healthy(self, is_alive: Callable[[], bool], timeout: float) -> bool:
        """Wait until Airflow is healthy; False when it ended or took too long."""
        wait_until(lambda: self.is_healthy() or not is_alive(), timeout, every=0.5)
        return self.is_healthy()

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool; one of that name that exists keeps its size, which the user may have changed."""
        body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
        self._request("POST", f"{API}/pools", json=body, accept=(409,))

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """Give a DAG's metadata; None while Airflow has not parsed it."""
        return self._get(f"dags/{dag_id}", accept=(404,)) or None

    def import_errors(self) -> list[str]:
        """List the import errors of DAG files."""
        return [f"{error['filename']}:\n{error['stack_trace']}" for error in self._get("importErrors")["import_errors"]]

    def wait_until_parsed(self, dag_id: str, since: datetime, is_alive: Callable[[], bool], timeout: float) -> None:
        """Wait until the DAG has been parsed after a moment, so that a run gets the present code."""
        reparse_requested = False

        def is_parsed() -> bool:
            nonlocal reparse_requested
            details = self.dag(dag_id)
            if details is None:
                if errors := self.import_errors():
                    raise LauncherError("the DAG cannot be imported", *errors)
                return False
            parsed = details.get("last_parsed_time")
            if parsed and datetime.fromisoformat(parsed) >= since and not details.get("is_stale"):
                return True
            if not reparse_requested:
                reparse_requested = True
                self._request("PUT", f"{API}/parseDagFile/{details['file_token']}", accept=(404, 409))
            return False

        if not wait_until(lambda: is_parsed() or not is_alive(), timeout, every=0.5):
            msg = f"Airflow has not parsed the DAG {dag_id}"
            raise LauncherError(msg, *self.import_errors())

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._request("PATCH", f"{API}/dags/{dag_id}", json={"is_paused": paused})

    def unfinished_runs(self, dag_id: str) -> list[str]:
        """Ids of a DAG's runs that are queued or running."""
        runs = self._get(f"dags/{dag_id}/dagRuns", state=list(UNFINISHED), limit=100)["dag_runs"]
        return [run["dag_run_id"] for run in runs]

    def fail_run(self, dag_id: str, run_id: str, *, note: str, retry_seconds: float | None = None) -> None:
        """Mark a run as failed, which stops its tasks."""
        body = {"state": "failed", "note": note}
        self._request("PATCH", f"{API}/dags/{dag_id}/dagRuns/{run_id}", json=body, retry_seconds=retry_seconds)

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Start a run."""
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        # 409: an earlier attempt of this request arrived although its response did not
        self._request("POST", f"{API}/dags/{dag_id}/dagRuns", json=body, accept=(409,))

    def create_backfill(self, dag_id: str, first: date, last: date, conf: dict[str, Any], *, at_once: int) -> int:
        """Start a backfill of the runs of these days; returns its id.

        Existing runs of these days run again; their tasks that are up to date end within seconds.
        """
        body = {
            "dag_id": dag_id,
            "from_date": start_of_day(first).isoformat(),
            "to_date": end_of_day(last).isoformat(),
            "dag_run_conf": conf,
            "reprocess_behavior": "completed",
            "max_active_runs": at_once,
        }
        return int(self._request("POST", f"{API}/backfills", json=body)["id"])

    def unfinished_backfills(self, dag_id: str) -> list[int]:
        """Ids of a DAG's unfinished backfills."""
        backfills = self._get("backfills", dag_id=dag_id, limit=100)["backfills"]
        return [int(backfill["id"]) for backfill in backfills if backfill["completed_at"] is None]

    def cancel_backfill(self, backfill: int, *, retry_seconds: float | None = None) -> None:
        """Cancel a backfill: its runs that have not started do not start.

        Airflow responds before its database has the new state, and accepts no other backfill of the DAG until then.
        """
        limit = self._retry_seconds if retry_seconds is None else retry_seconds
        path = f"{API}/backfills/{backfill}"
        self._request("PUT", f"{path}/cancel", accept=(404, 409), retry_seconds=limit)

        def is_over() -> bool:
            state = self._request("GET", path, accept=(404,), retry_seconds=limit)
            return not state or state["completed_at"] is not None

        wait_until(is_over, limit, every=0.2)

    def runs(self, dag_id: str, **filters: str) -> list[dict[str, Any]]:
        """Give a DAG's runs, each with id, type, state and dates.

        Filters are those of the REST API, such as ``run_type="backfill"`` or ``run_after_gte``.
        """
        found: list[dict[str, Any]] = []
        while True:
            page: dict[str, Any] = {**filters, "limit": _PAGE, "offset": len(found), "order_by": "run_after"}
            answer = self._get(f"dags/{dag_id}/dagRuns", **page)
            found += answer["dag_runs"]
            if not answer["dag_runs"] or len(found) >= answer["total_entries"]:
                return found

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run: queued, running, success, failed."""
        return str(self._get(f"dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All tasks of a run, each with its state, attempt, start and end."""
        return list(self._get(f"dags/{dag_id}/dagRuns/{run_id}/taskInstances", limit=500)["task_instances"])

    def task_order(self, dag_id: str) -> list[str]:
        """Give a DAG's task ids, each after those upstream of it."""
        tasks = self._get(f"dags/{dag_id}/tasks")["tasks"]
        order = TopologicalSorter[str]({task["task_id"]: () for task in tasks})
        for task in tasks:
            for below in task["downstream_task_ids"]:
                order.add(below, task["task_id"])
        return list(order.static_order())

    def log_events(self, dag_id: str, run_id: str, task_id: str, attempt: int) -> list[dict[str, Any]]:
        """Give the log of one attempt of a task so far; each entry has at least an ``event``."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        content = self._get(path, accept=(404,), full_content="true").get("content") or []
        return [entry if isinstance(entry, dict) else {"event": str(entry)} for entry in content]

    def return_value(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Give a task's return value; None if it has none."""
        path = f"dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        value: Any = self._get(path, accept=(404,), deserialize="false").get("value")
        with contextlib.suppress(ValueError, TypeError):
            return json.loads(value)
        return value

    def _get(self, path: str, *, accept: tuple[int, ...] = (), **params: Any) -> dict[str, Any]:
        return self._request("GET", f"{API}/{path}", accept=accept, params=params)

    def _request(
        self,
        method: str,
        path: str,
        *,
        accept: tuple[int, ...] = (),
        retry_seconds: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Send a request, signing in if necessary and retrying while the server is unreachable.

        Returns the response's object; an empty one for an accepted error.
        """
        attempts = Retrying(
            retry=retry_if_exception_type(httpx.HTTPError),
            stop=stop_after_delay(self._retry_seconds if retry_seconds is None else retry_seconds),
            wait=wait_fixed(1),
            reraise=True,
        )
        try:
            answer = attempts(self._request_once, method, path, options)
        except httpx.HTTPError as error:
            msg = f"Airflow is unreachable at {self.address}: {error}"
            raise LauncherError(msg) from None
        if not answer.is_success and answer.status_code not in accept:
            raise LauncherError(f"Airflow rejected {method} {path}: {_reason(answer)}")
        return dict(answer.json() or {}) if answer.is_success and answer.content else {}

    def _request_once(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        for _ in range(2):
            self._token = self._token or self._sign_in()
            headers = {"Authorization": f"Bearer {self._token}"}
            answer = self._http.request(method, path, headers=headers, **options)
            if answer.status_code != 401:
                break
            # tokens expire after a day, runs may take three
            self._token = ""
        if answer.status_code >= 500 or answer.status_code == 429:
            answer.raise_for_status()
        return answer

    def _sign_in(self) -> str:
        try:
            password = json.loads(self._password_file.read_text())[self._user]
        except (OSError, ValueError, KeyError):
            msg = f"the password of Airflow's user {self._user} is not in {self._password_file}"
            raise LauncherError(msg, "Remove that file and start again: Airflow then generates a new one.") from None
        answer = self._http.post("/auth/token", json={"username": self._user, "password": password})
        if answer.is_error:
            raise LauncherError(f"Airflow rejected the password in {self._password_file}: {_reason(answer)}")
        return str(answer.json()["access_token"])


def _reason(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        if detail := answer.json().get("detail"):
            return detail if isinstance(detail, str) else json.dumps(detail)
    return f"{answer.status_code} {answer.reason_phrase}"


def start_of_day(day: date) -> datetime:
    """First moment of a day, in UTC."""
    return datetime.combine(day, datetime.min.time(), UTC)


def end_of_day(day: date) -> datetime:
    """Last moment of a day, in UTC."""
    return datetime.combine(day, datetime.max.time(), UTC)


def now() -> datetime:
    """Give the present time in UTC, as Airflow does."""
    return datetime.now(UTC)
