"""HTTP requests with clear failures: each reply is a success, or the error of its kind without any secret in it."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from numerai_pipeline.core.errors import BadInputError, NetworkError, NotFoundError, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK_BYTES = 2**18


class ServerBusyError(NetworkError):
    """The server answered that it is overloaded or unavailable.

    Attributes
    ----------
    retry_after : float
        Seconds of the header ``Retry-After``; 0 without one.
    """

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def public_address(address: str) -> str:
    """Give an address without its secrets: the query has signatures and tokens, the host may have a password."""
    parts = urlsplit(address)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}"


def describe_failure(error: Exception) -> str:
    """Describe a failed request in one line, without the signed part of any address."""
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    inner = error.args[0] if error.args else error
    if isinstance(inner, urllib3.exceptions.MaxRetryError):
        inner = inner.reason or inner
    text = re.sub(r"^HTTPS?Connection\([^)]*\): ", "", str(inner))
    return re.sub(r"\?[^\s'\")]+", "?…", text) or type(error).__name__


def check_status(response: requests.Response, what: str) -> None:
    """Raise the error that a reply's status stands for; 2xx passes.

    Raises
    ------
    NotFoundError
        404 and 410.
    ServerBusyError
        408, 425, 429 and 5xx.
    NetworkError
        401 and 403: a signed address expires, the next one may be valid.
    ProtocolError
        Any other.
    """
    status = response.status_code
    reply = f"{what}: the server answered {status} {response.reason or ''}".rstrip()
    if status in (404, 410):
        msg = f"{reply}: check the name or the address"
        raise NotFoundError(msg)
    if status in (408, 425, 429) or status >= 500:
        wait = response.headers.get("Retry-After", "")
        raise ServerBusyError(reply, float(wait) if wait.isdecimal() else 0.0)
    if status in (401, 403):
        raise NetworkError(reply)
    if not 200 <= status < 300:
        raise ProtocolError(reply)


@contextmanager
def network_errors(what: str) -> Iterator[None]:
    """Turn errors of requests into errors of the pipeline; the originals have the signed address.

    Raises
    ------
    BadInputError
        The address is not one.
    NetworkError
        Any other failure of a request.
    """
    try:
        yield
    except requests.exceptions.InvalidURL as error:
        msg = f"{what}: not an address ({describe_failure(error)})"
        raise BadInputError(msg) from None
    except requests.Timeout:
        msg = f"{what}: no answer in time"
        raise NetworkError(msg) from None
    except requests.ConnectionError as error:
        msg = (
            f"{what}: cannot be reached ({describe_failure(error)}): check the network of this machine, and HTTPS_PROXY"
            " behind a proxy"
        )
        raise NetworkError(msg) from None
    except requests.RequestException as error:
        msg = f"{what}: {describe_failure(error)}"
        raise NetworkError(msg) from None


def reject_html(response: requests.Response, what: str) -> None:
    """Raise NetworkError for an HTML page: the sign of a server under maintenance, or of a proxy on the way."""
    if response.headers.get("Content-Type", "").startswith("text/html"):
        msg = f"{what}: the server answered with an HTML page; it may be under maintenance"
        raise NetworkError(msg)


def iter_body(response: requests.Response, what: str) -> Iterator[bytes]:
    """Give a reply's body in blocks as they arrive.

    ``iter_content`` fills its blocks before it returns them: a slow server would seem to stall, and a broken connection
    would lose received bytes.

    Raises
    ------
    NetworkError
        When the connection breaks or stalls. A body that ends early need not raise: compare its length.
    """
    try:
        while block := response.raw.read1(_BLOCK_BYTES, decode_content=True):
            yield block
    except urllib3.exceptions.ReadTimeoutError:
        msg = f"{what}: the server stopped sending"
        raise NetworkError(msg) from None
    except urllib3.exceptions.HTTPError as error:
        msg = f"{what}: the connection broke ({describe_failure(error)})"
        raise NetworkError(msg) from None
