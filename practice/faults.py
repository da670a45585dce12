"""Faults on request: failures of Numerai's servers and of the network, for the next n requests.

Tests queue :class:`Fault` objects, in Python or by ``POST /practice/faults``; the server applies the matching ones to a
request. A :class:`RequestLog` has all requests.
"""

from __future__ import annotations

import threading
from collections import deque
from email.utils import format_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field, model_validator

if TYPE_CHECKING:
    from datetime import datetime

    from starlette.types import Message, Receive, Scope, Send

Place = Literal["graphql", "file", "upload"]
Kind = Literal[
    "delay",  # answer `seconds` later
    "status",  # answer with `status`, by default 503
    "html",  # answer 200 with an HTML page
    "graphql_error",  # answer a GraphQL error with `message`
    "truncated",  # announce the whole body, send `keep` bytes (by default half of it), close the connection
    "ignore_range",  # send the whole file in answer to a Range
    "ignore_if_range",  # send the range although the content has changed
    "wrong_range",  # send the right number of bytes, but from the beginning
    "changed",  # different content of the same size: `swap` replaced, or the last byte altered
    "no_etag",  # omit the ETag
    "no_date",  # omit Last-Modified
    "late",  # take a submission as if the current round had closed
    "reject",  # refuse a submission with `message`, also a valid one
    "unlisted",  # omit the newest submission from latestSubmissions, or a result from diagnostics
]

_FITS: dict[str, set[Place]] = {
    "delay": {"graphql", "file", "upload"},
    "status": {"graphql", "file", "upload"},
    "html": {"graphql", "file", "upload"},
    "graphql_error": {"graphql"},
    "late": {"graphql"},
    "reject": {"graphql"},
    "unlisted": {"graphql"},
}

_PAGE = "<!DOCTYPE html><html><head><title>Maintenance</title></head><body><h1>We will be back</h1></body></html>"


class Fault(BaseModel):
    """A fault and the requests that it applies to.

    Attributes
    ----------
    kind : str
        The fault, as listed at :data:`Kind`.
    on : {"graphql", "file", "upload"}
        Kind of request.
    count : int
        Number of requests that it applies to.
    match : str
        Only requests whose query or file name holds this text.
    ranges : bool or None
        Only requests with (True) or without (False) a ``Range``; None for both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Kind
    on: Place
    count: int = Field(default=1, ge=1)
    match: str = ""
    ranges: bool | None = None
    seconds: float = Field(default=0.0, ge=0)
    status: int = Field(default=503, ge=300, le=599)
    retry_after: int | None = None
    message: str = "Something went wrong"
    keep: int | None = Field(default=None, ge=0)
    swap: tuple[str, str] | None = None

    @model_validator(mode="after")
    def _makes_sense(self) -> Fault:
        if self.on not in _FITS.get(self.kind, {"file"}):
            msg = f"{self.kind!r} cannot happen to a {self.on} request"
            raise ValueError(msg)
        if self.swap and len(self.swap[0].encode()) != len(self.swap[1].encode()):
            msg = f"swap must keep the size: {self.swap}"
            raise ValueError(msg)
        return self

    def reply(self) -> Response | None:
        """Return the answer that replaces the real one; None for a fault that alters the real answer."""
        match self.kind:
            case "status":
                headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
                return Response(f"error {self.status}", self.status, headers, media_type="text/plain")
            case "html":
                return HTMLResponse(_PAGE)
            case "graphql_error":
                return JSONResponse({"data": None, "errors": [{"message": self.message}]})
            case _:
                return None


class FaultQueue:
    """The pending faults."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._left: list[tuple[Fault, int]] = []

    def add(self, *faults: Fault) -> None:
        """Queue faults. Faults of one kind apply in turn, faults of different kinds to the same request."""
        with self._lock:
            self._left += [(fault, fault.count) for fault in faults]

    def remove(self, fault: Fault) -> None:
        """Remove a fault from the queue."""
        with self._lock:
            self._left = [(queued, count) for queued, count in self._left if queued is not fault]

    def clear(self) -> None:
        """Empty the queue."""
        with self._lock:
            self._left.clear()

    def take(self, on: Place, subject: str, *, is_range: bool) -> dict[Kind, Fault]:
        """Take the faults of a request from the queue: the first match of each kind, by kind."""
        taken: dict[Kind, Fault] = {}
        with self._lock:
            left = []
            for fault, count in self._left:
                fits = fault.on == on and fault.match in subject and fault.ranges in (None, is_range)
                if fits and fault.kind not in taken:
                    taken[fault.kind] = fault
                    count -= 1  # noqa: PLW2901 - the remaining count
                if count:
                    left.append((fault, count))
            self._left = left
        return taken


class RequestLog:
    """The requests that the server got, for tests. Has no keys, only whether a request had some.

    Parameters
    ----------
    keep : int
        Number of requests to keep, the last ones.
    """

    def __init__(self, keep: int = 10_000) -> None:
        self._lock = threading.Lock()
        self._entries: deque[dict[str, Any]] = deque(maxlen=keep)

    def add(self, **entry: Any) -> None:
        """Record a request."""
        with self._lock:
            self._entries.append(entry)

    def entries(self, **wanted: Any) -> list[dict[str, Any]]:
        """List the requests in order of arrival; only those with the given values of fields."""
        with self._lock:
            return [entry for entry in self._entries if wanted.items() <= entry.items()]

    def clear(self) -> None:
        """Remove all requests."""
        with self._lock:
            self._entries.clear()


class MisbehavingFile(FileResponse):
    """A file response with ranges, ETag and length, altered by the given faults."""

    def __init__(self, path: str, etag: str, modified: datetime, faults: dict[Kind, Fault]) -> None:
        headers = {"ETag": etag, "Last-Modified": format_datetime(modified, usegmt=True)}
        super().__init__(path, media_type="application/octet-stream", headers=headers)
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the file, altered by the faults."""
        dropped = {b"range"} if "ignore_range" in self._faults else set()
        if "ignore_if_range" in self._faults:
            dropped.add(b"if-range")
        headers = [(name, value) for name, value in scope["headers"] if name not in dropped]
        if "wrong_range" in self._faults:
            headers = [(name, self._from_beginning(value) if name == b"range" else value) for name, value in headers]
        await super().__call__({**scope, "headers": headers}, receive, self._altered(send))

    def _from_beginning(self, asked: bytes) -> bytes:
        first = int(asked.removeprefix(b"bytes=").partition(b"-")[0])
        return b"bytes=0-%d" % (Path(self.path).stat().st_size - first - 1)

    def _altered(self, send: Send) -> Send:
        allowed: int | None = None

        async def send_altered(message: Message) -> None:
            nonlocal allowed
            if message["type"] == "http.response.start":
                headers = dict(message["headers"])
                if "no_etag" in self._faults:
                    headers.pop(b"etag")
                if "no_date" in self._faults:
                    headers.pop(b"last-modified")
                if "truncated" in self._faults:
                    keep = self._faults["truncated"].keep
                    allowed = int(headers[b"content-length"]) // 2 if keep is None else keep
                message["headers"] = list(headers.items())
            elif allowed is not None:
                body = message.get("body", b"")[:allowed]
                allowed -= len(body)
                # never the last message: the server closes the connection of an unfinished answer
                message = {**message, "body": body, "more_body": True}
            await send(message)

        return send_altered


def changed_content(content: bytes, swap: tuple[str, str] | None) -> bytes:
    """Return different content of the same size: a text replaced, or else the last byte altered.

    Raises
    ------
    ValueError
        The content does not have the text to replace.
    """
    if swap is None:
        return content[:-1] + bytes([content[-1] ^ 1])
    old, new = (text.encode() for text in swap)
    if old not in content:
        msg = f"cannot swap {swap[0]!r}: the file does not contain it"
        raise ValueError(msg)
    return content.replace(old, new)
