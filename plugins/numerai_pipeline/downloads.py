"""Downloads one can rely on: a file is whole, what the server has now, and checked, or there is none.

numerapi's own downloader is not used: it appends error pages to half a file, splices old and new content, and takes a
file of the right size for the right file. Here

- a file grows under a temporary name of its own and is renamed only after its length and its content were checked;
- after a break-off the rest is asked for with ``Range`` and ``If-Range``, and used only if the server says that it is
  exactly that range of exactly that content; otherwise the download starts again;
- a file from an earlier run is used again only if its manifest holds and the server still names the same ``ETag`` and
  length. If the server cannot be asked, nothing is used again, not even the training data: without the server nobody
  knows which round it is either, so trying again later is the only honest answer.

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
import tenacity
import urllib3.exceptions

from numerai_pipeline.content_checks import Check, Content, ContentError, check_for, check_zip
from numerai_pipeline.disk import require_free_space, translate_disk_errors
from numerai_pipeline.errors import BadInputError, NetworkError, NotFoundError, ProtocolError
from numerai_pipeline.locks import exclusive_lock
from numerai_pipeline.manifests import (
    atomic_path,
    file_sha256,
    manifest_path,
    read_manifest,
    verified_manifest,
    write_manifest,
)
from numerai_pipeline.progress import Progress
from numerai_pipeline.raw_dataset import RawFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from numerai_pipeline.run_layout import DataLayout

log = logging.getLogger(__name__)

_BLOCK = 2**18


class BusyError(NetworkError):
    """The server asked to be left alone for a while.

    Attributes
    ----------
    retry_after : float
        Seconds it named; 0 when it named none.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Patience:
    """How often, and how far apart, a server is asked again.

    Attributes
    ----------
    attempts : int
        Tries before giving up. A download counts those in a row that brought it no further.
    first_wait, longest_wait : float
        Seconds between tries: doubling from the first to the longest, with jitter.
    """

    attempts: int = 5
    first_wait: float = 1.0
    longest_wait: float = 60.0

    def retrying(self, what: str, stop: Callable[[tenacity.RetryCallState], bool] | None = None) -> tenacity.Retrying:
        """Build what calls a function again after network and protocol errors, and says so in the log."""
        backoff = tenacity.wait_exponential_jitter(
            multiplier=self.first_wait, max=self.longest_wait, jitter=self.first_wait
        )

        def wait(state: tenacity.RetryCallState) -> float:
            error = state.outcome.exception() if state.outcome else None
            asked = error.retry_after if isinstance(error, BusyError) else 0.0
            return max(backoff(state), min(asked, self.longest_wait))

        def tell(state: tenacity.RetryCallState) -> None:
            error = state.outcome.exception() if state.outcome else None
            seconds = state.next_action.sleep if state.next_action else 0
            log.warning("%s: %s; trying again in %.1f s", what, error, seconds)

        return tenacity.Retrying(
            retry=tenacity.retry_if_exception_type((NetworkError, ProtocolError)),
            stop=stop or tenacity.stop_after_attempt(self.attempts),
            wait=wait,
            before_sleep=tell,
            reraise=True,
        )


@dataclass(frozen=True)
class RemoteFile:
    """What a server says of a file before it sends it.

    Attributes
    ----------
    etag : str or None
        Its name for this content, in quotes; None when it gives none.
    size : int or None
        Bytes; None when it does not say.
    modified : datetime or None
        When the content was put there; None when it does not say. It tells nothing about whether two are the same.
    """

    etag: str | None
    size: int | None
    modified: datetime | None = field(default=None, compare=False)

    @property
    def can_resume(self) -> bool:
        """Whether two halves with this ETag are sure to fit: weak ETags only promise similar content."""
        return self.etag is not None and not self.etag.startswith("W/") and self.size is not None

    def is_same(self, other: RemoteFile) -> bool:
        """Whether both are known to be the same content."""
        return self.etag is not None and self == other

    def is_other(self, other: RemoteFile) -> bool:
        """Whether the two are known to be different content."""
        return (None not in (self.etag, other.etag) and self.etag != other.etag) or (
            None not in (self.size, other.size) and self.size != other.size
        )


def public_address(address: str) -> str:
    """Address without what must not be told: signatures and tokens stand in the query, passwords before the host."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def describe_failure(error: Exception) -> str:
    """Say what went wrong with a request, in one line, without the signed part of any address."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner = error.args[0] if error.args else error
    if isinstance(inner, urllib3.exceptions.MaxRetryError):
        inner = inner.reason or inner
    return re.sub(r"\?[^\s'\")]+", "?…", str(inner)) or type(error).__name__


def check_status(response: requests.Response, what: str) -> None:
    """Raise the error that a reply's status stands for; 2xx passes.

    Raises
    ------
    NotFoundError
        404 and 410.
    BusyError
        408, 425, 429 and 5xx.
    NetworkError
        401 and 403: a signed address expires, the next one may be good.
    ProtocolError
        Any other.
    """
    status = response.status_code
    said = f"{what}: the server answered {status} {response.reason or ''}".rstrip()
    if status in (404, 410):
        msg = f"{said}: check the name or the address"
        raise NotFoundError(msg)
    if status in (408, 425, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise BusyError(said, float(wait) if wait.isdecimal() else 0.0)
    if status in (401, 403):
        raise NetworkError(said)
    if not 200 <= status < 300:
        raise ProtocolError(said)


def received_blocks(response: requests.Response, what: str) -> Iterator[bytes]:
    """Give a reply's body as it comes in.

    ``iter_content`` fills its blocks before it hands them on: a slow server would seem to stand still, and what came
    in before a break-off would be lost.

    Raises
    ------
    NetworkError
        When the connection breaks off or goes quiet. A body that ends early need not raise: compare its length.
    """
    try:
        while block := response.raw.read1(_BLOCK, decode_content=True):
            yield block
    except urllib3.exceptions.ReadTimeoutError:
        msg = f"{what}: the server stopped sending"
        raise NetworkError(msg) from None
    except urllib3.exceptions.HTTPError as error:
        msg = f"{what}: the connection broke off ({describe_failure(error)})"
        raise NetworkError(msg) from None


class _Source:
    """Where a file comes from: asks for it, and reads what the answer says of it."""

    def __init__(self, name: str, presign: Callable[[], str], timeout: float) -> None:
        self.name = name
        self._presign = presign
        self._timeout = timeout

    @contextmanager
    def opened(self, headers: Mapping[str, str] | None = None) -> Iterator[requests.Response]:
        """Ask for the file, with the answer's body still to be read; the address is a new one each time."""
        address = self._presign()
        what = f"{self.name} from {public_address(address)}"
        # identity: a compressed transfer has neither the length nor the ranges of the file
        headers = {"Accept-Encoding": "identity", **(headers or {})}
        try:
            with requests.get(address, headers=headers, stream=True, timeout=self._timeout) as response:
                check_status(response, what)
                if response.headers.get("Content-Type", "").startswith("text/html"):
                    msg = f"{what}: the server answered an HTML page instead of the file"
                    raise NetworkError(msg)
                if response.headers.get("Content-Encoding", "identity") != "identity":
                    msg = f"{what}: the server sends it compressed although it was asked not to"
                    raise ProtocolError(msg)
                yield response
        except requests.exceptions.InvalidURL as error:
            msg = f"{what}: not an address ({describe_failure(error)})"
            raise BadInputError(msg) from None
        except requests.RequestException as error:
            msg = f"{what}: {describe_failure(error)}"
            raise NetworkError(msg) from None  # the original names the signed address

    def identity(self) -> RemoteFile:
        """Ask what the server has now. A GET that is hung up on before the body: signed addresses refuse HEAD."""
        with self.opened() as response:
            return _described(response)


def _described(response: requests.Response) -> RemoteFile:
    length = response.headers.get("Content-Length", "")
    return RemoteFile(
        response.headers.get("ETag"),
        int(length) if length.isdecimal() else None,
        _moment(response.headers.get("Last-Modified", "")),
    )


def _moment(text: str) -> datetime | None:
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else None


def remote_identity(name: str, presign: Callable[[], str], *, timeout: float, patience: Patience) -> RemoteFile:
    """Ask what a server has now, without downloading it."""
    source = _Source(name, presign, timeout)
    return patience.retrying(name)(source.identity)


class _Transfer:
    """One download into a temporary file, over as many connections as it takes."""

    def __init__(self, source: _Source, part: Path, check: Check) -> None:
        self._source = source
        self._part = part
        self._check = check
        self._begun: RemoteFile | None = None
        self._furthest = 0
        self._fruitless = 0

    def run(self, patience: Patience) -> tuple[RemoteFile, Content]:
        """Download, check and describe the file, trying again while that brings it further."""

        def gave_up(_state: tenacity.RetryCallState) -> bool:
            return self._fruitless >= patience.attempts

        return patience.retrying(self._source.name, gave_up)(self._attempt)

    def _attempt(self) -> tuple[RemoteFile, Content]:
        furthest = self._furthest
        try:
            remote = self._receive()
            return remote, self._checked()
        except (NetworkError, ProtocolError):
            self._fruitless = 1 if self._furthest > furthest else self._fruitless + 1
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
                # the whole file: this is no resume, or the content changed, or the server cannot do ranges
                offset = 0
                remote = _described(response)
            self._begun = remote
            if remote.size is not None:
                require_free_space(self._part.parent, remote.size - offset, self._source.name)
            done = self._write(response, offset, remote.size)
        if remote.size is not None and done != remote.size:
            msg = f"{self._source.name}: the connection broke off after {done} of {remote.size} bytes"
            raise NetworkError(msg)
        return remote

    def _rest_of_file(self, response: requests.Response, offset: int) -> RemoteFile:
        begun = self._begun
        expected = f"bytes {offset}-{begun.size - 1}/{begun.size}" if begun and begun.size else "none"
        got = response.headers.get("Content-Range")
        etag = response.headers.get("ETag")
        if begun is None or got != expected or etag != begun.etag:
            self._start_over()
            msg = (
                f"{self._source.name}: asked for the rest ({expected} of {begun.etag if begun else None}) the server"
                f" sends something else ({got} of {etag}); starting over"
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
            for block in received_blocks(response, self._source.name):
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
    patience: Patience | None = None,
) -> RawFile:
    """Make ``destination`` the file that the server has now, with a manifest, downloading it only when it must.

    Parameters
    ----------
    name : str
        What the log and the errors call it, such as ``v5.3/train.parquet``.
    presign : callable
        Gives the address to ask; called for every connection, since signed addresses expire.
    destination : Path
        Where the file goes. Several tasks may want the same one at once: one downloads, the others wait and use it.
    timeout : float
        Seconds to wait for the server to connect or to send the next bytes.
    check : callable, optional
        Reads the finished file; chosen by the suffix of ``name`` when left out.
    about : mapping, optional
        Facts for the manifest. A kept file with other facts is not used again.
    patience : Patience, optional

    Returns
    -------
    RawFile
        Path and SHA-256.

    Raises
    ------
    NetworkError
        The server cannot be reached, is busy or keeps breaking off.
    ProtocolError
        It sends something that is not the file.
    NotFoundError
        It has no such file.
    DiskFullError
        There is no room.
    """
    patience = patience or Patience()
    source = _Source(name, presign, timeout)
    with translate_disk_errors(destination.parent), _alone(destination):
        if _is_current(destination, source, dict(about or {}), patience):
            manifest = verified_manifest(destination)
            if manifest is not None:
                log.info("%s: unchanged on the server, using %s", name, destination)
                os.utime(manifest_path(destination))  # housekeeping asks when a file was last used
                return RawFile(str(destination), manifest.sha256)
            log.warning("%s: %s is damaged; downloading it again", name, destination)
        with atomic_path(destination) as part:
            remote, content = _Transfer(source, part, check or check_for(name)).run(patience)
        facts = {**(about or {}), "etag": remote.etag}
        manifest = write_manifest(destination, rows=content.rows, columns=content.columns, about=facts)
        return RawFile(str(destination), manifest.sha256)


def _is_current(destination: Path, source: _Source, about: dict[str, Any], patience: Patience) -> bool:
    """Ask whether the kept file, if it is what its manifest says, is also what the server has."""
    manifest = read_manifest(destination)
    if manifest is None or not destination.is_file() or not about.items() <= manifest.about.items():
        return False
    remote = patience.retrying(source.name)(source.identity)
    return remote.is_same(RemoteFile(manifest.about.get("etag"), manifest.bytes))


@contextmanager
def _alone(destination: Path) -> Iterator[None]:
    """Let only one task at a time download a file into its folder, which is made."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with exclusive_lock(destination, "downloading it"):
        yield


def fetch_archive(
    address_or_path: str, layout: DataLayout, http_timeout: float, *, patience: Patience | None = None
) -> RawFile:
    """Get a zip of the classic layout: from this machine as it lies there, or from an https address.

    Parameters
    ----------
    address_or_path : str
        Absolute path (``~`` is understood) or https address.
    layout : DataLayout
        Downloads go to ``downloads/archive/<hash of the address>/<name>``: two addresses may end in the same name.
    http_timeout : float
        Seconds to wait for the server to connect or to send the next bytes.
    patience : Patience, optional

    Raises
    ------
    BadInputError
        The path is not there or not a readable zip, or the address is not https.
    """
    if "://" not in address_or_path:
        return _local_archive(Path(address_or_path).expanduser())
    parts = urlsplit(address_or_path)
    if parts.scheme != "https" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        msg = f"archive {public_address(address_or_path)}: only https addresses are downloaded, others can be altered"
        raise BadInputError(f"{msg} on their way; download it yourself and give its path")
    name = re.sub(r"[^\w.-]", "_", unquote(parts.path).rpartition("/")[2]).lstrip(".") or "archive.zip"
    folder = hashlib.sha256(address_or_path.encode()).hexdigest()[:12]
    return fetch(
        name,
        lambda: address_or_path,
        layout.downloads(f"archive/{folder}") / name,
        timeout=http_timeout,
        check=check_zip,
        about={"address": public_address(address_or_path)},
        patience=patience,
    )


def _local_archive(path: Path) -> RawFile:
    remedy = "give the absolute path of a zip of the classic layout, as the machine that runs Airflow's tasks sees it"
    if not path.is_absolute():
        msg = f"archive {path}: not an absolute path; {remedy}"
        raise BadInputError(msg)
    if not path.is_file():
        msg = f"archive {path}: there is no such file; {remedy}"
        raise BadInputError(msg)
    try:
        check_zip(path)
        return RawFile(str(path), file_sha256(path))
    except (ContentError, PermissionError) as error:
        msg = f"archive {path}: {error}; {remedy}"
        raise BadInputError(msg) from None
