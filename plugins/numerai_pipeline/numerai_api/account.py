"""An account at Numerai: its models, the scopes of its key, uploads, and the status of submissions.

numerapi's upload ignores the storage's reply to the file, and the submission it then creates has no content. Here the
address still comes from numerapi and the file is uploaded by this module, so that a failed upload is an error; and a
submission counts only when Numerai lists its id.

The statuses of a submission are recorded in public (Numerai's forum, "Introducing queued submissions & submission
statuses"): ``on-time`` for an accepted one; ``late`` for round N together with ``queued`` for round N + 1 after the
close of round N; ``none`` for a round without a submission. A queued submission becomes ``on-time`` when its round
opens, unless a newer one replaces it.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import requests

from numerai_pipeline.core.errors import NetworkError, NotFoundError, ProtocolError, SubmissionError
from numerai_pipeline.numerai_api.client import CLASSIC, MissingScopeError
from numerai_pipeline.numerai_api.http import check_status, network_errors, public_address, reject_html
from numerai_pipeline.numerai_api.retries import TRANSIENT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numerai_pipeline.numerai_api.client import ApiClient

log = logging.getLogger(__name__)

ON_TIME, LATE, QUEUED, NONE = "on-time", "late", "queued", "none"
"""Numerai's statuses of a submission."""
DIAGNOSTICS_SECONDS = 600.0
"""Seconds to wait for the diagnostics of validation rows by default."""

_UPLOAD_SCOPE = "upload_submission"
_DIAGNOSED = "done"

_CREATE = """
    mutation($filename: String! $tournament: Int! $modelId: String) {
        create_submission(filename: $filename tournament: $tournament modelId: $modelId source: "numerapi") { id }
    }"""
_CREATE_DIAGNOSTICS = """
    mutation($filename: String! $tournament: Int! $modelId: String) {
        createDiagnostics(filename: $filename tournament: $tournament modelId: $modelId) { id }
    }"""
_LATEST = """
    query { account { models { id name latestSubmissions { id roundNumber status filename timestamp } } } }"""
_SCOPES = "query { account { apiTokens { public_id scopes } } }"


@dataclass(frozen=True)
class SubmissionEntry:
    """One entry of a model's latest submissions: a submission in the role it has for one round.

    Attributes
    ----------
    model_id : str
    round : int
    status : str
        Numerai's word: ``on-time``, ``late``, ``queued`` or ``none``.
    submission : str or None
        Id of the submission; None for ``none``.
    filename : str or None
        The name under which the file was uploaded; None for ``none``.
    """

    model_id: str
    round: int
    status: str
    submission: str | None
    filename: str | None


class Account:
    """The account that a client's keys belong to, at Numerai or at the simulated tournament.

    Parameters
    ----------
    client : ApiClient
        With keys.
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client
        self._models: dict[str, str] | None = None

    def models(self) -> dict[str, str]:
        """Give the account's models of the classic tournament, name → id.

        Raises
        ------
        CredentialsError
            When the keys are refused or lack the scope ``read_user_info``.
        """
        if self._models is None:
            self._models = self._call("querying the account's models", self._client.numerapi.get_models)
        return self._models

    def model_id(self, name: str) -> str:
        """Give the id of a model.

        Raises
        ------
        NotFoundError
            When the account has no model of this name; the message lists its models.
        """
        models = self.models()
        if name not in models:
            msg = (
                f"the account has no model {name!r} (its models: {', '.join(models) or 'none'}): correct the name in"
                " the submissions"
            )
            raise NotFoundError(msg)
        return models[name]

    def check_access(self) -> None:
        """Check that the keys are valid and have the scopes for uploading and confirming submissions.

        The scopes of the key itself come from ``apiTokens``, where Numerai lists the key.

        Raises
        ------
        MissingScopeError
            Naming the scope.
        CredentialsError
            When the keys are refused.
        """
        self._call("checking the keys", self.latest_submissions)
        try:
            tokens = self._client.call_once(
                "querying the scopes of the keys",
                lambda: self._client.query(_SCOPES, with_keys=True)["account"]["apiTokens"],
            )
            scopes = {token["public_id"]: token["scopes"] for token in tokens or []}.get(self._client.public_id)
        except (*TRANSIENT, NotFoundError, MissingScopeError, KeyError, TypeError) as error:
            log.info("the scopes of the keys cannot be listed (%s); an upload will show them", error)
            return
        if scopes and _UPLOAD_SCOPE not in scopes:
            msg = (
                f"{self._client.url}: the Numerai keys lack the scope {_UPLOAD_SCOPE} (theirs: {', '.join(scopes)}):"
                " create a key that has it, since scopes cannot be added to an existing key"
            )
            raise MissingScopeError(msg, _UPLOAD_SCOPE)

    def latest_submissions(self) -> list[SubmissionEntry]:
        """Query, once, the latest submissions of all models, each round's entry of each model.

        Raises
        ------
        NetworkError, ProtocolError
            The server is unreachable or its answer cannot be read.
        CredentialsError
            The keys are refused or lack a scope.
        """
        models = self._client.call_once(
            "querying the latest submissions",
            lambda: self._client.query(_LATEST, with_keys=True)["account"]["models"],
        )
        try:
            return [
                SubmissionEntry(
                    str(model["id"]), int(entry["roundNumber"]), str(entry["status"]), entry["id"], entry["filename"]
                )
                for model in models
                for entry in model["latestSubmissions"] or []
                if entry["roundNumber"] is not None
            ]
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{self._client.url}: cannot read the latest submissions ({type(error).__name__}: {error})"
            raise ProtocolError(msg) from None

    def upload_file(self, model_id: str, file: Path, *, endpoint: str = "submission_upload_auth") -> str:
        """Upload a file to a new signed address, in one attempt; returns the file name that the server assigned.

        Raises
        ------
        NetworkError, ProtocolError
            The attempt failed; another one can succeed.
        CredentialsError
            The keys are refused or lack a scope.
        """
        what = f"uploading {file.name}"
        auth = self._attempt(what, lambda: self._client.numerapi._upload_auth(endpoint, str(file), CLASSIC, model_id))
        try:
            address, filename = str(auth["url"]), str(auth["filename"])
        except (KeyError, TypeError):
            msg = f"{self._client.url}: {what}: the reply has no address to upload to"
            raise ProtocolError(msg) from None
        what = f"{what} to {public_address(address)}"
        try:
            with (
                network_errors(what),
                file.open("rb") as content,
                requests.put(
                    address, data=content, timeout=self._client.timeout, allow_redirects=False, stream=True
                ) as response,
            ):
                check_status(response, what)
                reject_html(response, what)
        except NotFoundError as error:
            raise NetworkError(str(error)) from None  # an address that is gone: the next one may be valid
        log.info("uploaded %s, %d bytes", file.name, file.stat().st_size)
        return filename

    def create_submission(self, model_id: str, filename: str) -> str:
        """Turn an uploaded file into a submission, in one attempt; returns its id.

        Raises
        ------
        NetworkError, ProtocolError
            The attempt failed. The server may have created the submission all the same: check
            :meth:`latest_submissions` for the file name before the next attempt.
        CredentialsError
            The keys are refused or lack a scope.
        """
        return self._create(_CREATE, "create_submission", filename, model_id)

    def diagnose(
        self,
        model_id: str,
        file: Path,
        *,
        timeout_seconds: float = DIAGNOSTICS_SECONDS,
        poll_seconds: float = 5.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> dict[str, Any]:
        """Have predictions of validation rows scored; returns Numerai's diagnostics as numerapi gives them.

        Raises
        ------
        SubmissionError
            When they are not done in time.
        PipelineError
            As for :meth:`upload_file` and :meth:`create_submission`.
        """
        retrying = self._client.policy.retrying(f"diagnostics of {file.name}")
        filename = retrying(self.upload_file, model_id, file, endpoint="diagnosticsUploadAuth")
        created = retrying(self._create, _CREATE_DIAGNOSTICS, "createDiagnostics", filename, model_id)
        deadline = time.monotonic() + timeout_seconds
        while True:
            found = first_of(
                retrying(
                    self._client.call_once,
                    "querying diagnostics",
                    lambda: self._client.numerapi.diagnostics(model_id, created),
                )
            )
            if found.get("status") == _DIAGNOSED:
                return found
            if time.monotonic() >= deadline:
                msg = (
                    f"diagnostics {created} ({file.name}) were not done within {timeout_seconds:g} s: their status is"
                    f" {found.get('status')!r} ({found.get('message') or 'no message'})"
                )
                raise SubmissionError(msg)
            sleep(poll_seconds)

    def _create(self, query: str, field: str, filename: str, model_id: str) -> str:
        variables = {"filename": filename, "tournament": CLASSIC, "modelId": model_id}
        return str(
            self._attempt(
                f"creating a submission of {filename}",
                lambda: self._client.query(query, variables, with_keys=True)[field]["id"],
            )
        )

    def _call(self, what: str, function: Callable[[], Any]) -> Any:
        """Call the server as :meth:`_attempt` does, repeatedly while the retry policy allows it."""
        return self._client.policy.retrying(what)(self._attempt, what, function)

    def _attempt(self, what: str, function: Callable[[], Any]) -> Any:
        """Call the server once, where "not found" is transient: none of the calls names a file of a dataset.

        During an outage Numerai's own files were missing (forum, "Cannot upload round 592 predictions on v4 live
        data").
        """
        try:
            return self._client.call_once(what, function)
        except NotFoundError as error:
            raise NetworkError(str(error)) from None


def first_of(answer: Sequence[Any] | dict[str, Any] | None) -> dict[str, Any]:
    """Give the first entry of a list of diagnostics; empty while there is none. A single object counts as its entry."""
    if isinstance(answer, dict):
        return answer
    entry = answer[0] if answer else None
    return dict(entry) if isinstance(entry, dict) else {}
