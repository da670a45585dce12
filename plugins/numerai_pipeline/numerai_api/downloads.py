"""Verified downloads: a file is complete, current and checked, or it is not there.

numerapi's own downloader is not used: it appends error pages to half a file, splices old and new content, and takes a
file of the right size for the right file. Here

- a file grows under a temporary name and is renamed only after its length and content were checked;
- after a broken connection the rest is requested with ``Range`` and ``If-Range``, and used only if the server confirms
  that it sends exactly that range of exactly that content; otherwise the download starts again;
- a file from an earlier run is reused only if its manifest holds and the server still names the same ``ETag`` and
  length. Without an answer of the server no file is reused, not even the training data: the round's number would be
  unknown as well, so the task is retried later.

:func:`fetch` is the general form, :func:`fetch_archive` the one for zips of the classic layout.
"""

from __future__ import annotations

import hashlib
import logging
import os
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

import requests

from numerai_pipeline.core.errors import BadInputError, NetworkError, NotFoundError, ProtocolError
from numerai_pipeline.dataset.file_checks import Check, Content, ContentError, check_for, check_zip
from numerai_pipeline.dataset.raw import RawFile
from numerai_pipeline.numerai_api.http import check_status, iter_body, network_errors, public_address, reject_html
from numerai_pipeline.numerai_api.retries import TRANSIENT, RetryPolicy
from numerai_pipeline.storage.disk import require_free_space, translate_disk_errors
from numerai_pipeline.storage.locks import exclusive_lock
from numerai_pipeline.storage.manifests import (
    atomic_path,
    file_sha256,
    manifest_path,
    read_manifest,
    verified_manifest,
    write_manifest,
)
from numerai_pipeline.storage.progress import Progress

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from numerai_pipeline.storage.layout import DataLayout

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFile:
    """Headers of a file at the server.

    Attributes
    ----------
    etag : str or None
        The server's identifier of the content, in quotes; None without one.
    size : int or None
        Bytes; None when unknown.
    modified : datetime or None
        When the content was stored; None when unknown. Not part of the comparison of two files.
    """

    etag: str | None
    size: int | None
    modified: datetime | None = field(default=None, compare=False)

    @property
    def can_resume(self) -> bool:
        """Whether two halves with this ETag are certain to fit: weak ETags only promise similar content."""
        return self.etag is not None and not self.etag.startswith("W/") and self.size is not None

    def is_same(self, other: RemoteFile) -> bool:
        """Whether both are known to be the same content."""
        return self.etag is not None and self == other

    def differs_from(self, other: RemoteFile) -> bool:
        """Whether both are known to be different content."""
        return (None not in (self.etag, other.etag) and self.etag != other.etag) or (
            None not in (self.size, other.size) and self.size != other.size
        )


class _Source:
    """Address of a file, and the headers of its replies."""

    def __init__(self, name: str, presign: Callable[[], str], timeout: float, *, is_listed: bool = False) -> None:
        self.name = name
        self._presign = presign
        self._timeout = timeout
        self._is_listed = is_listed

    @contextmanager
    def opened(self, headers: Mapping[str, str] | None = None) -> Iterator[requests.Response]:
        """Request the file from a new address; the reply's body is still to be read.

        A file that the server lists and does not have is about to be stored: a transient error.
        """
        try:
            with self._response(headers) as response:
                yield response
        except NotFoundError as error:
            if not self._is_listed:
                raise
            msg = f"{error} (the server lists this file)"
            raise NetworkError(msg) from None

    @contextmanager
    def _response(self, headers: Mapping[str, str] | None) -> Iterator[requests.Response]:
        address = self._presign()
        what = f"{self.name} from {public_address(address)}"
        # identity: a compressed transfer has neither the length nor the ranges of the file
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        with (
            network_errors(what),
            requests.get(address, headers=headers, stream=True, timeout=self._timeout) as response,
        ):
            check_status(response, what)
            reject_html(response, what)
            if response.headers.get("Content-Encoding", "identity") != "identity":
                msg = f"{what}: the server sends compressed content although identity was requested"
                raise ProtocolError(msg)
            yield response

    def identity(self) -> RemoteFile:
        """Query the headers by a GET that is closed before the body: signed addresses refuse HEAD."""
        with self.opened() as response:
            return _headers_of(response)


def _headers_of(response: requests.Response) -> RemoteFile:
    length = response.headers.get("Content-Length", "")
    return RemoteFile(
        response.headers.get("ETag"),
        int(length) if length.isdecimal() else None,
        _parse_http_date(response.headers.get("Last-Modified", "")),
    )


def _parse_http_date(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def remote_identity(name: str, presign: Callable[[], str], *, timeout: float, policy: RetryPolicy) -> RemoteFile:
    """Query the headers of a file without downloading it."""
    return policy.retrying(name)(_Source(name, presign, timeout).identity)


class _Download:
    """One download into a temporary file, over as many connections as needed."""

    def __init__(self, source: _Source, part: Path, check: Check) -> None:
        self._source = source
        self._part = part
        self._check = check
        self._begun: RemoteFile | None = None
        self._furthest = 0
        self._attempts_without_progress = 0

    def run(self, policy: RetryPolicy) -> tuple[RemoteFile, Content]:
        """Download, check and describe the file; attempts that receive new bytes do not count."""
        retrying = policy.retrying(self._source.name, lambda: self._attempts_without_progress)
        return retrying(self._attempt)

    def _attempt(self) -> tuple[RemoteFile, Content]:
        furthest = self._furthest
        try:
            remote = self._receive()
            return remote, self._checked()
        except TRANSIENT:
            self._attempts_without_progress = 1 if self._furthest > furthest else self._attempts_without_progress + 1
            raise

    def _receive(self) -> RemoteFile:
        offset = self._part.stat().st_size
        headers = {}
        if offset and self._begun and self._begun.can_resume:
            headers = {"Range": f"bytes={offset}-", "If-Range": str(self._begun.etag)}
        with self._source.opened(headers) as response:
            if response.status_code == 206:
                remote = self._rest_of_file(response, offset)
            else:
                # the whole file: this is no resume, or the content changed, or the server has no ranges
                offset = 0
                remote = _headers_of(response)
            self._begun = remote
            if remote.size is not None:
                require_free_space(self._part.parent, remote.size - offset, self._source.name)
            done = self._write(response, offset, remote.size)
        if remote.size is not None and done != remote.size:
            msg = f"{self._source.name}: the connection broke after {done} of {remote.size} bytes"
            raise NetworkError(msg)
        return remote

    def _rest_of_file(self, response: requests.Response, offset: int) -> RemoteFile:
        begun = self._begun
        expected = f"bytes {offset}-{begun.size - 1}/{begun.size}" if begun and begun.size else "none"
        received = response.headers.get("Content-Range")
        etag = response.headers.get("ETag")
        if begun is None or received != expected or etag != begun.etag:
            self._start_over()
            msg = (
                f"{self._source.name}: the server sends {received} of {etag} instead of the requested {expected} of"
                f" {begun.etag if begun else None}; the download starts over"
            )
            raise NetworkError(msg)
        log.info("%s: resuming at byte %d of %s", self._source.name, offset, begun.size)
        return begun

    def _write(self, response: requests.Response, offset: int, total: int | None) -> int:
        progress = Progress(log, self._source.name, total or 0, "bytes", done=offset)
        done = offset
        with self._part.open("r+b") as file:
            file.seek(offset)
            file.truncate()
            for block in iter_body(response, self._source.name):
                file.write(block)
                done += len(block)
                self._furthest = max(self._furthest, done)
                progress.advance(len(block))
        progress.finish("downloaded")
        return done

    def _checked(self) -> Content:
        try:
            return self._check(self._part)
        except ContentError as error:
            self._start_over()
            msg = f"{self._source.name}: the downloaded file is {error}"
            raise ContentError(msg) from None

    def _start_over(self) -> None:
        self._begun = None
        with self._part.open("r+b") as file:
            file.truncate(0)


def fetch(
    name: str,
    presign: Callable[[], str],
    destination: Path,
    *,
    timeout: float,
    check: Check | None = None,
    about: Mapping[str, Any] | None = None,
    policy: RetryPolicy | None = None,
    is_listed: bool = False,
) -> RawFile:
    """Make ``destination`` the file that the server has now, with a manifest; download it only when needed.

    Parameters
    ----------
    name : str
        Subject of log lines and errors, such as ``v5.3/train.parquet``.
    presign : callable
        Gives the address; called for every connection, since signed addresses expire.
    destination : Path
        The file. Several tasks may need the same one at once: one downloads it, the others wait and use it.
    timeout : float
        Seconds to wait for the server to connect or to send the next bytes.
    check : callable, optional
        Reads the finished file; chosen by the suffix of ``name`` by default.
    about : mapping, optional
        Facts for the manifest. A file whose manifest has other facts is not reused.
    policy : RetryPolicy, optional
    is_listed : bool
        Whether the server lists the file, so that "not found" is a transient error.

    Returns
    -------
    RawFile
        Path and SHA-256.

    Raises
    ------
    NetworkError
        The server is unreachable, busy or keeps breaking the connection.
    ProtocolError
        The content is not the file's.
    NotFoundError
        The server has no such file.
    DiskFullError
        The data volume has no space left.
    """
    policy = policy or RetryPolicy()
    source = _Source(name, presign, timeout, is_listed=is_listed)
    with translate_disk_errors(destination.parent), _exclusively(destination):
        if _is_current(destination, source, dict(about or {}), policy):
            manifest = verified_manifest(destination)
            if manifest is not None:
                log.info("%s: unchanged on the server, using %s", name, destination)
                os.utime(manifest_path(destination))  # housekeeping goes by the time of last use
                return RawFile(str(destination), manifest.sha256)
            log.warning("%s: %s is damaged; downloading it again", name, destination)
        with atomic_path(destination) as part:
            remote, content = _Download(source, part, check or check_for(name)).run(policy)
        facts = {**(about or {}), "etag": remote.etag}
        manifest = write_manifest(destination, rows=content.rows, columns=content.columns, about=facts)
        return RawFile(str(destination), manifest.sha256)


def _is_current(destination: Path, source: _Source, about: dict[str, Any], policy: RetryPolicy) -> bool:
    """Whether the stored file matches its manifest's facts and the server still has the same content."""
    manifest = read_manifest(destination)
    if manifest is None or not destination.is_file() or not about.items() <= manifest.about.items():
        return False
    remote = policy.retrying(source.name)(source.identity)
    return remote.is_same(RemoteFile(manifest.about.get("etag"), manifest.bytes))


@contextmanager
def _exclusively(destination: Path) -> Iterator[None]:
    """Let only one task at a time download a file into its folder, which is created."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(destination, "downloading it"):
        yield


def fetch_archive(
    address_or_path: str, layout: DataLayout, timeout: float, *, policy: RetryPolicy | None = None
) -> RawFile:
    """Get a zip of the classic layout: a path of this machine is used in place, an https address is downloaded.

    Parameters
    ----------
    address_or_path : str
        Absolute path (``~`` is expanded) or https address.
    layout : DataLayout
        Downloads go to ``downloads/archive/<hash of the address>/<name>``: two addresses may end in the same name.
    timeout : float
        Seconds to wait for the server to connect or to send the next bytes.
    policy : RetryPolicy, optional

    Raises
    ------
    BadInputError
        The path is missing or not a readable zip, or the address is not https.
    """
    if "://" not in address_or_path:
        return _local_archive(Path(address_or_path).expanduser())
    parts = urlsplit(address_or_path)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        msg = f"archive {public_address(address_or_path)}: only https addresses are downloaded, others can be altered"
        raise BadInputError(f"{msg} in transit; download it yourself and give its path")
    name = re.sub(r"[^\w.-]", "_", unquote(parts.path).rpartition("/")[2]).lstrip(".") or "archive.zip"
    folder = hashlib.sha256(address_or_path.encode()).hexdigest()[:12]
    return fetch(
        name,
        lambda: address_or_path,
        layout.downloads(f"archive/{folder}") / name,
        timeout=timeout,
        check=check_zip,
        about={"address": public_address(address_or_path)},
        policy=policy,
    )


def _local_archive(path: Path) -> RawFile:
    remedy = "give the absolute path of a zip of the classic layout, as the machine that runs Airflow's tasks has it"
    if not path.is_absolute():
        msg = f"archive {path}: not an absolute path; {remedy}"
        raise BadInputError(msg)
    if not path.is_file():
        msg = f"archive {path}: no such file; {remedy}"
        raise BadInputError(msg)
    try:
        check_zip(path)
        return RawFile(str(path), file_sha256(path))
    except (ContentError, PermissionError) as error:
        msg = f"archive {path}: {error}; {remedy}"
        raise BadInputError(msg) from None
