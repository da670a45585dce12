"""HTTP server on this machine that gives recorded answers of Numerai's API, and takes uploads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.recorded.answers import RecordedAnswer, recorded

FIELDS = (
    "create_submission",
    "createDiagnostics",
    "submission_upload_auth",
    "diagnosticsUploadAuth",
    "diagnostics",
    "apiTokens",
    "latestSubmissions",
    "submissions",
    "rounds",
    "account",
)
"""Fields of queries, each before its subfields."""


class RecordedServer:
    """Answers each query by its first field of :data:`FIELDS`.

    Attributes
    ----------
    answers : dict
        Field → body of the reply.
    requests : list of str
        Fields that were queried, and ``PUT`` for each upload, in order.
    address : str
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.answers: dict[str, Any] = {
            "account": {"data": {"account": {"models": [{"id": "m1", "name": "mine", "tournament": 8}]}}},
            "apiTokens": {"data": {"account": {"apiTokens": []}}},
            "createDiagnostics": {"data": {"createDiagnostics": {"id": "d1"}}},
        }
        self.give("latestSubmissions", recorded("latest_submissions_on_time"))
        self.give("create_submission", recorded("create_submission"))
        self.give("diagnostics", recorded("diagnostics_done"))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.address = f"http://127.0.0.1:{self._server.server_port}"
        upload = {"filename": "predictions-AbCdEfGhIjKl.csv", "url": f"{self.address}/put?signature=secret"}
        for field in ("submission_upload_auth", "diagnosticsUploadAuth"):
            self.answers[field] = {"data": {field: upload}}

    def give(self, field: str, answer: RecordedAnswer) -> None:
        """Answer queries of a field with a recorded answer from now on."""
        self.answers[field] = answer.answer

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: Any) -> None:
                pass

            def do_PUT(self) -> None:
                self._body()
                outer.requests.append("PUT")
                self._reply(b"")

            def do_POST(self) -> None:
                query = json.loads(self._body())["query"]
                field = next(name for name in FIELDS if f"{name}(" in query or f"{name} " in query)
                outer.requests.append(field)
                self._reply(json.dumps(outer.answers[field]).encode())

            def _body(self) -> bytes:
                return self.rfile.read(int(self.headers["Content-Length"]))

            def _reply(self, body: bytes) -> None:
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler

    @contextmanager
    def running(self) -> Iterator[RecordedServer]:
        """Serve while the block runs."""
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()
