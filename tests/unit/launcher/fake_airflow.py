"""A program in place of ``airflow standalone``: the REST API for one DAG, whose runs end after some requests.

``python fake_airflow.py PORT HOME OUTCOME``: the password file is written to HOME, and each request that changes
something is appended to HOME/requests.
"""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

DAG = "numerai_tournament"
PASSWORD = "of-the-fake"
SUMMARY = {
    "round": "1400",
    "models": {"svm": {"rows": 9, "logloss": 0.69, "correlation": 0.02, "predictions": "/svm.csv"}},
}


class FakeAirflow:
    """The state of the API: the runs, each with the number of polls after which it ends."""

    def __init__(self, home: Path, outcome: str) -> None:
        self.home = home
        self.outcome = outcome
        self.runs: dict[str, dict[str, Any]] = {}
        self.polls = 0
        self.paused = True

    def request(self, method: str, path: str, body: dict[str, Any]) -> Any:
        if method != "GET" and path != "/auth/token":
            with (self.home / "requests").open("a") as file:
                file.write(f"{method} {path} {json.dumps(body)}\n")
        for pattern, answer in ROUTES.items():
            if match := re.fullmatch(pattern, f"{method} {path.removeprefix('/api/v2/')}"):
                return answer(self, body, *match.groups())
        return None

    def dag(self, *_: Any) -> dict[str, Any]:
        now = datetime.now(UTC).isoformat()
        return {"is_paused": self.paused, "last_parsed_time": now, "file_token": "t", "max_active_runs": 3}

    def change_dag(self, body: dict[str, Any]) -> dict[str, Any]:
        self.paused = body["is_paused"]
        return {}

    def start_run(self, body: dict[str, Any]) -> dict[str, Any]:
        self.runs[body["dag_run_id"]] = {"dag_run_id": body["dag_run_id"], "state": "running"}
        return {}

    def list_runs(self, _: dict[str, Any]) -> dict[str, Any]:
        self._poll()
        runs = list(self.runs.values())
        return {"dag_runs": runs, "total_entries": len(runs)}

    def run(self, _: dict[str, Any], run: str) -> dict[str, Any]:
        self._poll()
        return self.runs[run]

    def change_run(self, body: dict[str, Any], run: str) -> dict[str, Any]:
        self.runs[run]["state"] = body["state"]
        return {}

    def start_backfill(self, body: dict[str, Any]) -> dict[str, Any]:
        day = body["from_date"]
        self.runs["week"] = {
            "dag_run_id": "week", "state": "running", "start_date": day, "end_date": day, "data_interval_end": day,
        }  # fmt: skip
        return {"id": 7}

    def task_instances(self, _: dict[str, Any], run: str) -> dict[str, Any]:
        state = self.runs[run]["state"]
        return {"task_instances": [{"task_id": "svm", "state": state, "try_number": 1, "max_tries": 0}]}

    def _poll(self) -> None:
        self.polls += 1
        if self.polls > 3 and self.outcome != "never":
            for run in self.runs.values():
                run["state"] = self.outcome if run["state"] == "running" else run["state"]


ROUTES: dict[str, Any] = {
    "POST /auth/token": lambda *_: {"access_token": "x"},
    "GET monitor/health": lambda *_: {
        name: {"status": "healthy"} for name in ("metadatabase", "scheduler", "dag_processor")
    },
    "POST pools": lambda *_: {},
    f"GET dags/{DAG}": FakeAirflow.dag,
    f"PATCH dags/{DAG}": FakeAirflow.change_dag,
    f"GET dags/{DAG}/tasks": lambda *_: {"tasks": [{"task_id": "svm", "downstream_task_ids": []}]},
    f"GET dags/{DAG}/dagRuns": FakeAirflow.list_runs,
    f"POST dags/{DAG}/dagRuns": FakeAirflow.start_run,
    f"GET dags/{DAG}/dagRuns/([^/]+)": FakeAirflow.run,
    f"PATCH dags/{DAG}/dagRuns/([^/]+)": FakeAirflow.change_run,
    f"GET dags/{DAG}/dagRuns/([^/]+)/taskInstances": FakeAirflow.task_instances,
    f"GET dags/{DAG}/dagRuns/[^/]+/taskInstances/svm/logs/1": lambda *_: {
        "content": [{"event": "too little memory", "level": "error"}]
    },
    f"GET dags/{DAG}/dagRuns/[^/]+/taskInstances/exploring/xcomEntries/return_value": lambda *_: {"value": SUMMARY},
    "GET backfills": lambda *_: {"backfills": []},
    "POST backfills": FakeAirflow.start_backfill,
    "PUT backfills/7/cancel": lambda *_: {},
    "GET backfills/7": lambda *_: {"completed_at": "now"},
}


def main(port: int, home: Path, outcome: str) -> None:
    """Serve until the process is ended."""
    fake = FakeAirflow(home, outcome)

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

        def reply(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            answer = fake.request(self.command, self.path.partition("?")[0], body)
            content = json.dumps(answer).encode()
            self.send_response(404 if answer is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = reply  # noqa: N815 - the names of the base class

    (home / "simple_auth_manager_passwords.json.generated").write_text(json.dumps({"admin": PASSWORD}))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
