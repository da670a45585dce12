"""The HTTP server of the simulator.

GraphQL on ``/``, files and uploads behind presigned addresses, the standings on ``/practice/standings``, and controls
for tests beside them.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import socket
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import anyio
import uvicorn
from anyio.to_thread import run_sync
from fastapi import Body, FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from pydantic import BaseModel

from practice.account_resolvers import RequestContext
from practice.faults import Fault, FaultQueue, Kind, MisbehavingFile, RequestLog, changed_content
from practice.protocol import Tournament, execute
from practice.scores import Scorer
from practice.standings import standings_page
from practice.submission_store import SubmissionStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from practice.accounts import Account
    from practice.season import Season


_UPLOAD = 0
"""Stands for the round in the signature of an upload; no round has this number."""


class Query(BaseModel):
    """Body of a GraphQL request."""

    query: str
    variables: dict[str, Any] | None = None


@dataclass(frozen=True)
class PracticeServer:
    """A running server, from :func:`running`."""

    address: str
    season: Season
    faults: FaultQueue
    requests: RequestLog
    store: SubmissionStore


class _Presigner:
    """Signs addresses, so that only addresses from this process are valid."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(16)

    def sign(self, name: str, round_number: int) -> str:
        return hmac.new(self._secret, f"{round_number}/{name}".encode(), hashlib.sha256).hexdigest()

    def is_signed(self, name: str, round_number: int, signature: str) -> bool:
        return hmac.compare_digest(self.sign(name, round_number), signature)


def create_app(
    season: Season,
    faults: FaultQueue | None = None,
    requests: RequestLog | None = None,
    *,
    controls: bool = False,
    store: SubmissionStore | None = None,
) -> FastAPI:
    """Build the server's application.

    Parameters
    ----------
    season : Season
        The season to serve.
    faults : FaultQueue, optional
        Faults to apply.
    requests : RequestLog, optional
        Records the requests.
    controls : bool
        Whether faults can be queued and the log read over HTTP, at ``/practice/``.
    store : SubmissionStore, optional
        Accounts and submissions; by default without accounts.
    """
    faults = faults or FaultQueue()
    requests = requests or RequestLog(keep=0)
    service = _Service(season, faults, requests, store or SubmissionStore(season))
    app = FastAPI(title="Simulated Numerai tournament", openapi_url=None)
    app.add_api_route("/", service.graphql, methods=["POST"], response_model=None)
    # signed for GET only, as on Numerai: HEAD is refused
    app.add_api_route("/files/{round_number}/{name:path}", service.file, methods=["GET"], response_model=None)
    app.add_api_route("/uploads/{name}", service.upload, methods=["PUT"], response_model=None)
    app.add_api_route("/practice/standings", service.standings, methods=["GET"], response_model=None)
    if controls:
        _add_controls(app, faults, requests)
    return app


class _Service:
    """The endpoints."""

    def __init__(self, season: Season, faults: FaultQueue, requests: RequestLog, store: SubmissionStore) -> None:
        self._season = season
        self._store = store
        self._scorer = Scorer(season, store)
        self._faults = faults
        self._requests = requests
        self._presigner = _Presigner()

    async def graphql(self, query: Query, request: Request) -> Response:
        """Answer a GraphQL query."""
        taken = self._faults.take("graphql", query.query, is_range=False)
        self._requests.add(
            on="graphql",
            query=query.query,
            variables=query.variables or {},
            has_keys="authorization" in request.headers,
            faults=sorted(taken),
        )
        if (reply := await _misbehave(taken)) is not None:
            return reply

        def presign(name: str, round_number: int) -> str:
            signature = self._presigner.sign(name, round_number)
            return f"{request.base_url}files/{round_number}/{name}?signature={signature}"

        def presign_upload(name: str) -> str:
            return f"{request.base_url}uploads/{name}?signature={self._presigner.sign(name, _UPLOAD)}"

        authorization = request.headers.get("authorization")
        context = RequestContext(self._store, self._scorer, authorization, presign_upload, taken)
        tournament = Tournament(self._season, presign, context)
        return JSONResponse(await run_sync(execute, tournament, query.query, query.variables))

    async def upload(self, name: str, request: Request, signature: str = "") -> Response:
        """Receive a file at a presigned address."""
        taken = self._faults.take("upload", name, is_range=False)
        content = await request.body()
        self._requests.add(on="upload", name=name, bytes=len(content), faults=sorted(taken))
        if (reply := await _misbehave(taken)) is not None:
            return reply
        if not self._presigner.is_signed(name, _UPLOAD, signature):
            return PlainTextResponse("SignatureDoesNotMatch", 403)
        try:
            self._store.receive(name, content)
        except (KeyError, ValueError):
            return PlainTextResponse("AccessDenied", 403)
        return Response(status_code=200)

    async def standings(self, request: Request) -> Response:
        """Show the standings: a page for browsers, JSON for other clients."""
        found = await run_sync(self._scorer.standings)
        if "text/html" in request.headers.get("accept", ""):
            return HTMLResponse(standings_page(found))
        return JSONResponse(found)

    async def file(self, round_number: int, name: str, request: Request, signature: str = "") -> Response:
        """Send a file, whole or a range of it."""
        asked = request.headers.get("range")
        taken = self._faults.take("file", name, is_range=asked is not None)
        self._requests.add(
            on="file",
            name=name,
            round=round_number,
            range=asked,
            if_range=request.headers.get("if-range"),
            faults=sorted(taken),
        )
        if (reply := await _misbehave(taken)) is not None:
            return reply
        if not self._presigner.is_signed(name, round_number, signature):
            return PlainTextResponse("SignatureDoesNotMatch", 403)
        if not self._season.is_served(round_number):
            return PlainTextResponse("AccessDenied: the address has expired", 403)
        path = await run_sync(self._season.file, name, round_number)
        if "changed" in taken:
            path = await run_sync(_changed_file, path, taken["changed"])
        etag = await run_sync(self._season.etag, path)
        return MisbehavingFile(str(path), etag, self._season.published(name, round_number), taken)


def _add_controls(app: FastAPI, faults: FaultQueue, requests: RequestLog) -> None:
    @app.post("/practice/faults")
    async def add_faults(new: Annotated[list[Fault], Body()]) -> dict[str, int]:
        faults.add(*new)
        return {"queued": len(new)}

    @app.delete("/practice/faults")
    async def clear_faults() -> dict[str, bool]:
        faults.clear()
        return {"cleared": True}

    @app.get("/practice/requests")
    async def read_log() -> list[dict[str, Any]]:
        return requests.entries()


async def _misbehave(taken: dict[Kind, Fault]) -> Response | None:
    if "delay" in taken:
        await anyio.sleep(taken["delay"].seconds)
    return next((reply for fault in taken.values() if (reply := fault.reply()) is not None), None)


def _changed_file(path: Path, fault: Fault) -> Path:
    """Write the changed content to a file, so that its ranges can be sent."""
    content = changed_content(path.read_bytes(), fault.swap)
    changed = path.parent / "changed" / f"{hashlib.sha256(content).hexdigest()[:12]}-{path.name}"
    if not changed.exists():
        changed.parent.mkdir(exist_ok=True)
        changed.write_bytes(content)
    return changed


def listening_socket(host: str, port: int) -> socket.socket:
    """Open the socket of the server; port 0 takes a free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((host, port))
    return listening


def address_of(listening: socket.socket) -> str:
    """Give the address at which a socket can be reached."""
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def server_config(app: FastAPI) -> uvicorn.Config:
    """Configure uvicorn: quiet, and without a delay at a stop."""
    return uvicorn.Config(app, log_level="critical", access_log=False, timeout_graceful_shutdown=0, lifespan="off")


@contextmanager
def running(season: Season, accounts: Sequence[Account] = ()) -> Iterator[PracticeServer]:
    """Serve a season from a thread of this process, on a free port, while the block lasts.

    The season's files are generated at their first request.
    """
    faults, requests, store = FaultQueue(), RequestLog(), SubmissionStore(season, accounts)
    app = create_app(season, faults, requests, controls=True, store=store)
    listening = listening_socket("127.0.0.1", 0)
    address = address_of(listening)
    server = uvicorn.Server(server_config(app))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, name="simulator", daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 30
        while not server.started:
            if not thread.is_alive() or time.monotonic() > deadline:
                msg = f"the simulator did not start at {address}"
                raise RuntimeError(msg)
            time.sleep(0.005)
        yield PracticeServer(address, season, faults, requests, store)
    finally:
        server.should_exit = True
        thread.join(timeout=10)
        listening.close()
