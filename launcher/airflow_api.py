"""A client of Airflow's REST API, with the calls that the launcher needs."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import httpx
from tenacity import Retrying, retry_if_exception_type, retry_if_result, stop_after_delay, wait_fixed

from launcher.errors import LauncherError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REQUEST_SECONDS = 20.0
# an API server on a busy machine may be unreachable for a while
RETRY_SECONDS = 60.0
# Airflow's default limit of a list
_PAGE = 50
UNFINISHED = ("queued", "running")
COMPONENTS = ("metadatabase", "scheduler", "dag_processor")


class AirflowApi:
    """A signed-in client of one Airflow."""

    def __init__(self, address: str, user: str, password_file: Path, *, retry_seconds: float = RETRY_SECONDS) -> None:
        self.address = address
        self._user = user
        self._password_file = password_file
        self._retry_seconds = retry_seconds
        self._token = ""
        # proxies of the environment are not for 127.0.0.1
        self._http = httpx.Client(base_url=address, timeout=REQUEST_SECONDS, trust_env=False)

    @property
    def port(self) -> int:
        """Port of its address."""
        return self._http.base_url.port or 80

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def is_healthy(self) -> bool:
        """Whether the database, the scheduler and the DAG processor are all healthy."""
        with contextlib.suppress(httpx.HTTPError, ValueError):
            components = self._http.get("/api/v2/monitor/health", timeout=5).json()
            return all(components.get(component, {}).get("status") == "healthy" for component in COMPONENTS)
        return False

    def wait_until_healthy(self, is_alive: Callable[[], bool], timeout: float) -> bool:
        """Wait until Airflow is healthy; False when it ended or took too long."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and is_alive():
            if self.is_healthy():
                return True
            time.sleep(0.5)
        return False

    def ensure_pool(self, name: str, slots: int, description: str) -> None:
        """Create a pool; one of that name that exists keeps its size, which the user may have changed."""
        if self._request("GET", f"/api/v2/pools/{name}", accept=(404,)).status_code == 404:
            body = {"name": name, "slots": slots, "description": description, "include_deferred": False}
            self._request("POST", "/api/v2/pools", json=body, accept=(409,))

    def dag(self, dag_id: str) -> dict[str, Any] | None:
        """Give a DAG's metadata; None while Airflow has not parsed it."""
        answer = self._request("GET", f"/api/v2/dags/{dag_id}", accept=(404,))
        return None if answer.status_code == 404 else _object(answer)

    def import_errors(self) -> list[str]:
        """List the import errors of DAG files."""
        errors = _object(self._request("GET", "/api/v2/importErrors"))["import_errors"]
        return [f"{error['filename']}:\n{error['stack_trace']}" for error in errors]

    def reparse(self, file_token: str) -> None:
        """Request that a DAG file is parsed again now."""
        self._request("PUT", f"/api/v2/parseDagFile/{file_token}", accept=(404, 409))

    def wait_until_parsed(self, dag_id: str, since: datetime, is_alive: Callable[[], bool], timeout: float) -> None:
        """Wait until the DAG has been parsed after a moment, so that a run gets the present code.

        Raises
        ------
        LauncherError
            When its file cannot be imported, or the DAG does not appear in time.
        """
        deadline = time.monotonic() + timeout
        reparse_requested = False
        while is_alive():
            details = self.dag(dag_id)
            parsed = details and details.get("last_parsed_time")
            if details and parsed and datetime.fromisoformat(parsed) >= since and not details.get("is_stale"):
                return
            errors = self.import_errors()
            if errors and (details is None or time.monotonic() > deadline - timeout / 2):
                raise LauncherError("the DAG cannot be imported", *errors)
            if details and not reparse_requested:
                reparse_requested = True
                self.reparse(details["file_token"])
            if time.monotonic() > deadline:
                msg = f"Airflow has not parsed the DAG {dag_id}"
                raise LauncherError(msg, *errors)
            time.sleep(0.5)

    def set_paused(self, dag_id: str, *, paused: bool) -> None:
        """Pause or unpause a DAG."""
        self._request("PATCH", f"/api/v2/dags/{dag_id}", json={"is_paused": paused})

    def unfinished_runs(self, dag_id: str) -> list[str]:
        """Ids of a DAG's runs that are queued or running."""
        params = {"state": list(UNFINISHED), "limit": 100}
        runs = _object(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns", params=params))["dag_runs"]
        return [run["dag_run_id"] for run in runs]

    def fail_run(self, dag_id: str, run_id: str, *, note: str, retry_seconds: float | None = None) -> None:
        """Mark a run as failed, which stops its tasks."""
        body = {"state": "failed", "note": note}
        self._request("PATCH", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}", json=body, retry_seconds=retry_seconds)

    def trigger(self, dag_id: str, run_id: str, conf: dict[str, Any]) -> None:
        """Start a run.

        Raises
        ------
        LauncherError
            When Airflow rejects the parameters.
        """
        body = {"dag_run_id": run_id, "logical_date": None, "conf": conf}
        # 409: an earlier attempt of this request arrived although its response did not
        self._request("POST", f"/api/v2/dags/{dag_id}/dagRuns", json=body, accept=(409,))

    def create_backfill(self, dag_id: str, first: date, last: date, conf: dict[str, Any], *, at_once: int) -> int:
        """Start a backfill of the runs of these days; returns its id.

        Existing runs of these days run again; their tasks that are up to date end within seconds.

        Raises
        ------
        LauncherError
            When Airflow rejects it.
        """
        body = {
            "dag_id": dag_id,
            "from_date": start_of_day(first).isoformat(),
            "to_date": end_of_day(last).isoformat(),
            "dag_run_conf": conf,
            "reprocess_behavior": "completed",
            "max_active_runs": at_once,
        }
        return int(_object(self._request("POST", "/api/v2/backfills", json=body))["id"])

    def unfinished_backfills(self, dag_id: str) -> list[int]:
        """Ids of a DAG's unfinished backfills."""
        found = _object(self._request("GET", "/api/v2/backfills", params={"dag_id": dag_id, "limit": 100}))["backfills"]
        return [int(one["id"]) for one in found if one["completed_at"] is None]

    def cancel_backfill(self, backfill: int, *, retry_seconds: float | None = None) -> None:
        """Cancel a backfill: its runs that have not started do not start.

        Airflow responds before its database has the new state, and accepts no other backfill of the DAG until then.
        """
        self._request("PUT", f"/api/v2/backfills/{backfill}/cancel", accept=(404, 409), retry_seconds=retry_seconds)
        attempts = Retrying(
            retry=retry_if_result(lambda over: not over),
            stop=stop_after_delay(self._retry_seconds if retry_seconds is None else retry_seconds),
            wait=wait_fixed(0.2),
            retry_error_callback=lambda _: None,
        )
        attempts(self._backfill_is_over, backfill, retry_seconds)

    def _backfill_is_over(self, backfill: int, retry_seconds: float | None) -> bool:
        answer = self._request("GET", f"/api/v2/backfills/{backfill}", accept=(404,), retry_seconds=retry_seconds)
        return answer.status_code == 404 or _object(answer)["completed_at"] is not None

    def runs(self, dag_id: str, **filters: str) -> list[dict[str, Any]]:
        """Give a DAG's runs, each with id, type, state and dates.

        Parameters
        ----------
        dag_id
            The DAG.
        **filters
            As the REST API has them, such as ``run_type="backfill"`` or ``run_after_gte``.
        """
        found: list[dict[str, Any]] = []
        while True:
            params: dict[str, Any] = {**filters, "limit": _PAGE, "offset": len(found), "order_by": "run_after"}
            answer = _object(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns", params=params))
            found += answer["dag_runs"]
            if not answer["dag_runs"] or len(found) >= answer["total_entries"]:
                return found

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run: queued, running, success, failed."""
        return str(_object(self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}"))["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All tasks of a run, each with its state, attempt, start and end."""
        answer = self._request("GET", f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances", params={"limit": 500})
        return list(_object(answer)["task_instances"])

    def task_order(self, dag_id: str) -> list[str]:
        """Give a DAG's task ids, each after those upstream of it."""
        tasks = {
            task["task_id"]: task for task in _object(self._request("GET", f"/api/v2/dags/{dag_id}/tasks"))["tasks"]
        }
        waiting_for = dict.fromkeys(tasks, 0)
        for task in tasks.values():
            for below in task["downstream_task_ids"]:
                waiting_for[below] += 1
        order: list[str] = []
        ready = [name for name, count in waiting_for.items() if count == 0]
        while ready:
            name = ready.pop(0)
            order.append(name)
            for below in tasks[name]["downstream_task_ids"]:
                waiting_for[below] -= 1
                if waiting_for[below] == 0:
                    ready.append(below)
        return order

    def log_events(self, dag_id: str, run_id: str, task_id: str, attempt: int) -> list[dict[str, Any]]:
        """Give the log of one attempt of a task so far; each entry has at least an ``event``."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/logs/{attempt}"
        answer = self._request("GET", path, params={"full_content": "true"}, accept=(404,))
        if answer.status_code == 404:
            return []
        content = _object(answer).get("content") or []
        return [entry if isinstance(entry, dict) else {"event": str(entry)} for entry in content]

    def return_value(self, dag_id: str, run_id: str, task_id: str) -> Any:
        """Give a task's return value; None if it has none."""
        path = f"/api/v2/dags/{dag_id}/dagRuns/{run_id}/taskInstances/{task_id}/xcomEntries/return_value"
        answer = self._request("GET", path, params={"deserialize": "false"}, accept=(404,))
        value = None if answer.status_code == 404 else _object(answer)["value"]
        if isinstance(value, str):
            with contextlib.suppress(ValueError):
                return json.loads(value)
        return value

    def _request(
        self,
        method: str,
        path: str,
        *,
        accept: tuple[int, ...] = (),
        retry_seconds: float | None = None,
        **options: Any,
    ) -> httpx.Response:
        """Send a request, signing in if necessary and retrying while the server is unreachable."""
        attempts = Retrying(
            retry=retry_if_exception_type((httpx.TransportError, _BusyError)),
            stop=stop_after_delay(self._retry_seconds if retry_seconds is None else retry_seconds),
            wait=wait_fixed(1),
            reraise=True,
        )
        try:
            return attempts(self._request_once, method, path, accept, options)
        except (httpx.TransportError, _BusyError) as error:
            msg = f"Airflow is unreachable at {self.address}: {error}"
            raise LauncherError(msg) from None

    def _request_once(self, method: str, path: str, accept: tuple[int, ...], options: dict[str, Any]) -> httpx.Response:
        answer = self._http.request(method, path, headers=self._bearer(), **options)
        if answer.status_code == 401:
            # tokens expire after a day, runs may take three
            self._token = ""
            answer = self._http.request(method, path, headers=self._bearer(), **options)
        if answer.status_code >= 500 or answer.status_code == 429:
            msg = f"{answer.status_code} {answer.reason_phrase}"
            raise _BusyError(msg)
        if answer.is_success or answer.status_code in accept:
            return answer
        raise LauncherError(f"Airflow rejected {method} {path}: {_reason(answer)}")

    def _bearer(self) -> dict[str, str]:
        if not self._token:
            self._token = self._sign_in()
        return {"Authorization": f"Bearer {self._token}"}

    def _sign_in(self) -> str:
        try:
            password = json.loads(self._password_file.read_text())[self._user]
        except (OSError, ValueError, KeyError):
            msg = f"the password of Airflow's user {self._user} is not in {self._password_file}"
            raise LauncherError(msg, "Remove that file and start again: Airflow then generates a new one.") from None
        answer = self._http.post("/auth/token", json={"username": self._user, "password": password})
        if not answer.is_success:
            msg = f"Airflow rejected the password in {self._password_file}: {_reason(answer)}"
            raise LauncherError(msg)
        return str(_object(answer)["access_token"])


class _BusyError(Exception):
    """The server is temporarily unable to handle the request."""


def _object(answer: httpx.Response) -> dict[str, Any]:
    content = answer.json()
    if not isinstance(content, dict):
        msg = f"Airflow responded with {type(content).__name__} instead of an object"
        raise LauncherError(msg)
    return content


def _reason(answer: httpx.Response) -> str:
    with contextlib.suppress(ValueError, AttributeError):
        detail = answer.json().get("detail")
        if detail:
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
