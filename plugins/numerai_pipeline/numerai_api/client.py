"""Client of Numerai's GraphQL API: every call ends in time, with a correct answer or an error that names its remedy.

The calls and most queries are numerapi's; the transport is this module's. numerapi sends every query through its method
``raw_query``, which has no time limit, one address for the whole process, and turns a refused connection, a refused key
and a busy server alike into ``KeyError: 'data'``. :class:`ApiClient` replaces ``raw_query`` of its numerapi object, so
that each client has an address (no module global is changed, and several clients can be used at once), each request a
deadline, and each failure the error of its kind.

The errors that come with a reply are distinguished by their texts, which are all that the protocol offers::

    CredentialsError     "Session not found", "Your session is invalid or has expired", "not_authenticated"
    └ MissingScopeError  "Insufficient permission for read_submission_info"
    NotFoundError
    ├ NoOpenRoundError   "Current round not open for submissions"
    └ MissingError       a file or round that the server does not have
    ProtocolError        any other text
"""

from __future__ import annotations

import copy
import json
import re
import time
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from numerai_pipeline.core.errors import CredentialsError, NetworkError, NotFoundError, PipelineError, ProtocolError
from numerai_pipeline.numerai_api.http import check_status, iter_body, network_errors
from numerai_pipeline.numerai_api.retries import RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

CLASSIC = 8
"""Numerai's number of the classic tournament."""

_MAX_REPLY_BYTES = 64 * 2**20
_Result = TypeVar("_Result")

_SCOPE = re.compile(r"insufficient permissions?(?: for (\w+))?", re.IGNORECASE)
_REFUSED_KEYS = re.compile(
    r"session[ _](not[ _]found|is invalid|has expired|expired)|invalid session|not[ _]authenticated"
    r"|unauthori[sz]ed|authenticat|credential|api[ _]key|permission",
    re.IGNORECASE,
)
_NO_OPEN_ROUND = re.compile(r"not open for submissions|no (active|current|open) round", re.IGNORECASE)
_MISSING = re.compile(
    r"not found|not available|not exist|no such|(invalid|unknown) (round|file|dataset)", re.IGNORECASE
)


class MissingScopeError(CredentialsError):
    """The key is valid, but a scope that was not granted when it was created is needed.

    Attributes
    ----------
    scope : str
        Numerai's name of the scope; empty when the reply does not name it.
    """

    def __init__(self, message: str, scope: str) -> None:
        super().__init__(message)
        self.scope = scope


class NoOpenRoundError(NotFoundError):
    """The server answers that no round is open at present."""


class MissingError(NotFoundError):
    """The server answers that it does not have this file, round or model."""


class _QueryRefusedError(ValueError):
    """The server executed the query and answered errors (numerapi uses ValueError for this, and so its methods do)."""


class ApiClient:
    """Connection to Numerai's API, or to the simulated tournament's.

    Parameters
    ----------
    url : str
        Address of the API.
    timeout : float
        Seconds within which every query must be answered; for downloads and uploads, seconds without progress.
    policy : RetryPolicy, optional
        When a failed call is repeated.
    keys : (str, str), optional
        Public id and secret key. They are sent only with calls that need them and never logged.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        policy: RetryPolicy | None = None,
        keys: tuple[str, str] | None = None,
    ) -> None:
        import numerapi  # heavy, and needed by tasks only

        self.url = url.rstrip("/")
        self.timeout = timeout
        self.policy = policy or RetryPolicy()
        self._keys = keys
        # without any keys, numerapi would read a .env file found near it into this process's environment
        create: Any = numerapi.NumerAPI
        self.numerapi = create("unused", "unused", verbosity="warning", show_progress_bars=False)
        self.numerapi.token = keys
        self.numerapi.raw_query = self._raw_query

    def with_policy(self, policy: RetryPolicy) -> ApiClient:
        """Give a client of the same connection with another retry policy."""
        other = copy.copy(self)
        other.policy = policy
        return other

    @property
    def public_id(self) -> str | None:
        """Public id of the keys."""
        return self._keys[0] if self._keys else None

    def call(self, what: str, function: Callable[[], _Result]) -> _Result:
        """Call numerapi, repeatedly while the retry policy allows it.

        Parameters
        ----------
        what : str
            Subject of log lines and errors, such as ``listing the datasets``.
        function : callable
            Uses :attr:`numerapi`.

        Raises
        ------
        PipelineError
            The error of the failure's kind.
        """
        result: _Result = self.policy.retrying(what)(self.call_once, what, function)
        return result

    def call_once(self, what: str, function: Callable[[], _Result]) -> _Result:
        """Call numerapi once, with its failures distinguished."""
        try:
            return function()
        except _QueryRefusedError as error:
            raise _error_from_message(self.url, what, str(error)) from None
        except (KeyError, TypeError, IndexError, AttributeError) as error:
            # numerapi reads the replies without checks
            msg = f"{self.url}: {what}: the reply lacks the requested content ({type(error).__name__}: {error})"
            raise ProtocolError(msg) from None

    def query(self, query: str, variables: Mapping[str, Any] | None = None, *, with_keys: bool = False) -> Any:
        """Send a query once and return the reply's ``data``; for use in :meth:`call` and :meth:`call_once`."""
        return self.numerapi.raw_query(query, variables, authorization=with_keys)["data"]

    def _raw_query(
        self,
        query: str,
        variables: Mapping[str, Any] | None = None,
        authorization: bool = False,
        **_retries: Any,
    ) -> dict[str, Any]:
        """Send a query as ``numerapi.NumerAPI.raw_query`` does, once, within the time limit."""
        headers = {"Accept": "application/json"}
        if authorization:
            if self._keys is None:
                msg = "this call needs the Numerai keys: set NUMERAI_PUBLIC_ID and NUMERAI_SECRET_KEY"
                raise CredentialsError(msg)
            headers["Authorization"] = f"Token {'$'.join(self._keys)}"
        body = {"query": query, "variables": dict(variables or {})}
        deadline = time.monotonic() + self.timeout
        with (
            network_errors(self.url),
            requests.post(self.url, json=body, headers=headers, timeout=self.timeout, stream=True) as response,
        ):
            return self._reply(response, self._read_until(response, deadline))

    def _read_until(self, response: requests.Response, deadline: float) -> bytes:
        """Read a reply until the deadline, however slowly it comes: requests' time limit restarts with each byte."""
        content = bytearray()
        for block in iter_body(response, self.url):
            content += block
            if time.monotonic() > deadline:
                msg = f"{self.url}: the reply was not complete within {self.timeout:g} s"
                raise NetworkError(msg)
            if len(content) > _MAX_REPLY_BYTES:
                msg = f"{self.url}: the reply is larger than {_MAX_REPLY_BYTES:,} bytes"
                raise ProtocolError(msg)
        return bytes(content)

    def _reply(self, response: requests.Response, content: bytes) -> dict[str, Any]:
        status = response.status_code
        if status == 401:
            raise _refused_keys(self.url, "401")
        if status == 429 or status >= 500:
            check_status(response, self.url)
        try:
            reply = json.loads(content)
        except ValueError:
            check_status(response, self.url)
            kind = response.headers.get("Content-Type", "of no type")
            msg = f"{self.url}: the reply is not JSON ({kind}); the API may be under maintenance"
            raise NetworkError(msg) from None
        if not isinstance(reply, dict):
            msg = f"{self.url}: the reply is not a JSON object"
            raise ProtocolError(msg)
        if reply.get("errors"):
            raise _QueryRefusedError(_join_messages(reply["errors"]))
        check_status(response, self.url)
        return reply


def _join_messages(errors: Any) -> str:
    """Put the errors of a GraphQL reply in one line.

    They come as a list of objects or as one, each with ``message``, ``error`` or ``detail``, some with a ``code``.
    """
    return "; ".join(_message(error) for error in (errors if isinstance(errors, list) else [errors]))


def _message(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    text = next((str(error[key]) for key in ("message", "error", "detail") if error.get(key)), "")
    code = str(error.get("code") or "")
    return f"{text} ({code})" if text and code else text or code or str(error)


def _error_from_message(url: str, what: str, message: str) -> PipelineError:
    """Choose the error for the text of a refused query. Keys come first: "Session not found" is no missing file."""
    if found := _SCOPE.search(message):
        return _missing_scope(url, what, found[1] or "", message)
    if _REFUSED_KEYS.search(message):
        return _refused_keys(url, message)
    text = f"{url}: {what}: {message}"
    if _NO_OPEN_ROUND.search(message):
        return NoOpenRoundError(text)
    if _MISSING.search(message):
        return MissingError(text)
    return ProtocolError(f"{url}: {what}: the server refused the query: {message}")


def _missing_scope(url: str, what: str, scope: str, message: str) -> MissingScopeError:
    needed = f"the scope {scope}" if scope else "a scope"
    msg = (
        f"{url}: {what}: the Numerai keys lack {needed} ({message}): create a key with the scopes upload_submission,"
        " read_submission_info and read_user_info, since scopes cannot be added to an existing key"
    )
    return MissingScopeError(msg, scope)


def _refused_keys(url: str, message: str) -> CredentialsError:
    msg = (
        f"{url}: the Numerai keys were refused ({message}): they are wrong, expired or revoked; check the connection"
        " numerai_default (numerai_practice for the simulated tournament), or NUMERAI_PUBLIC_ID and NUMERAI_SECRET_KEY"
    )
    return CredentialsError(msg)
