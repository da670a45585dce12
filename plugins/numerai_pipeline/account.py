"""An account at Numerai: its models, uploads that are sure to have arrived, and what became of them.

numerapi's own upload ignores what the server says to the file; the submission it then creates has nothing in it. Here
the address still comes from numerapi, and the file is put there by us, so that a failure is one; and an upload is
believed only when Numerai says of the model's latest submission that it is good.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import requests
import tenacity

from numerai_pipeline.downloads import check_status, describe_failure, public_address
from numerai_pipeline.errors import (
    NetworkError,
    NotFoundError,
    ProtocolError,
    SubmissionError,
)
from numerai_pipeline.tournament import CLASSIC, Tournament

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from numerai_pipeline.downloads import Patience

log = logging.getLogger(__name__)

DEFAULT_PATIENCE = 600.0
_Found = TypeVar("_Found")
_ACCEPTED = frozenset({"success", "succeeded", "successful", "accepted", "valid", "validated", "complete", "completed"})
_REFUSED = ("fail", "invalid", "error", "reject")
_DIAGNOSED = frozenset({*_ACCEPTED, "done", "finished"})

_CREATE = """
    mutation($filename: String! $tournament: Int! $modelId: String) {
        create_submission(filename: $filename tournament: $tournament modelId: $modelId source: "numerapi") { id }
    }"""
_CREATE_DIAGNOSTICS = """
    mutation($filename: String! $tournament: Int! $modelId: String) {
        createDiagnostics(filename: $filename tournament: $tournament modelId: $modelId) { id }
    }"""
_LATEST = "query { account { models { id latestSubmissions { roundNumber status } } } }"


@dataclass(frozen=True)
class Submission:
    """Predictions that Numerai has taken in.

    Attributes
    ----------
    id : str
        Numerai's name for them.
    round : int
        The round they count for.
    asked_for : int
        The round they were handed in for.
    status : str
        Numerai's word for how they are.
    """

    id: str
    round: int
    asked_for: int
    status: str

    @property
    def is_late(self) -> bool:
        """Whether they were taken in for a later round than the one they were handed in for."""
        return self.round != self.asked_for


class _UndecidedError(Exception):
    """Numerai has not said yet what became of an upload; the message says what it said."""


class Account(Tournament):
    """Numerai's classic tournament, or a practice season, as somebody with keys sees it.

    Parameters
    ----------
    api_url : str
        Address of the API.
    keys : (str, str)
        Public id and secret key. They are sent only with calls that need them and never told.
    timeout : float
        Seconds within which every query must be answered; for an upload, seconds without progress.
    patience : Patience, optional
        How often a call is tried.
    confirm_within : float
        Seconds within which an upload must be confirmed.
    first_look : float
        Seconds before an upload is looked at again, doubling up to half a minute.
    """

    def __init__(
        self,
        api_url: str,
        keys: tuple[str, str],
        *,
        timeout: float,
        patience: Patience | None = None,
        confirm_within: float = DEFAULT_PATIENCE,
        first_look: float = 2.0,
    ) -> None:
        super().__init__(api_url, timeout=timeout, patience=patience, keys=keys)
        self._confirm_within = confirm_within
        self._first_look = first_look
        self._models: dict[str, str] | None = None

    def models(self) -> dict[str, str]:
        """Give the account's models of the classic tournament, name → id.

        Raises
        ------
        CredentialsError
            When the keys are refused.
        """
        if self._models is None:
            self._models = self._call("asking for the account's models", self._api.get_models)
        return self._models

    def model_id(self, name: str) -> str:
        """Give the id of a model.

        Raises
        ------
        NotFoundError
            When the account has none of this name; tells which it has.
        """
        models = self.models()
        if name not in models:
            msg = (
                f"the account has no model {name!r} (there are: {', '.join(models) or 'none'}): see NUMERAI_SUBMISSIONS"
            )
            raise NotFoundError(msg)
        return models[name]

    def submit(self, model_id: str, file: Path, round_number: int) -> Submission:
        """Hand in predictions and wait until Numerai says that they are good.

        Parameters
        ----------
        model_id : str
        file : Path
            CSV ``id,prediction`` of the round's live rows.
        round_number : int
            The round they are for.

        Returns
        -------
        Submission
            With the round they were accepted for; it may be a later one (:attr:`Submission.is_late`).

        Raises
        ------
        NetworkError
            The file could not be uploaded, or the server not be asked.
        SubmissionError
            Numerai found the submission invalid, or did not say in time how it is.
        CredentialsError
            The keys were refused.
        """
        filename = self._upload("submission_upload_auth", file, model_id)
        created = self._create(_CREATE, "create_submission", filename, model_id, file.name)
        what = f"submission {created} ({file.name})"
        return self._decided(what, lambda: self._look(model_id, created, round_number))

    def diagnose(self, model_id: str, file: Path) -> dict[str, Any]:
        """Have predictions of validation rows scored; returns Numerai's diagnostics, as numerapi gives them.

        Raises
        ------
        NetworkError, SubmissionError, CredentialsError
            As for :meth:`submit`.
        """
        filename = self._upload("diagnosticsUploadAuth", file, model_id)
        created = self._create(_CREATE_DIAGNOSTICS, "createDiagnostics", filename, model_id, file.name)
        return self._decided(
            f"diagnostics {created} ({file.name})", lambda: self._look_at_diagnostics(model_id, created)
        )

    def _upload(self, endpoint: str, file: Path, model_id: str) -> str:
        """Put a file to an address that is asked for anew each time; returns the name to hand it in under."""
        what = f"uploading {file.name}"
        filename: str = self._patience.retrying(what)(self._put, endpoint, file, model_id, what)
        log.info("uploaded %s, %d bytes", file.name, file.stat().st_size)
        return filename

    def _put(self, endpoint: str, file: Path, model_id: str, what: str) -> str:
        auth = self._once(what, lambda: self._api._upload_auth(endpoint, str(file), CLASSIC, model_id))
        try:
            address, filename = str(auth["url"]), str(auth["filename"])
        except (KeyError, TypeError):
            msg = f"{self._url}: {what}: the reply has no address to upload to"
            raise ProtocolError(msg) from None
        where = f"{what} to {public_address(address)}"
        try:
            with (
                file.open("rb") as content,
                requests.put(
                    address, data=content, timeout=self._timeout, allow_redirects=False, stream=True
                ) as response,
            ):
                check_status(response, where)
                if response.headers.get("Content-Type", "").startswith("text/html"):
                    msg = f"{where}: the server answered an HTML page; is it under maintenance?"
                    raise NetworkError(msg)
        except NotFoundError as error:
            raise NetworkError(str(error)) from None  # an address that is gone: the next one may be good
        except requests.RequestException as error:
            msg = f"{where}: {describe_failure(error)}"
            raise NetworkError(msg) from None  # the original names the signed address
        return filename

    def _create(self, query: str, field: str, filename: str, model_id: str, name: str) -> str:
        variables = {"filename": filename, "tournament": CLASSIC, "modelId": model_id}

        def create() -> str:
            return str(self._api.raw_query(query, variables, authorization=True)["data"][field]["id"])

        return self._call(f"handing in {name}", create)

    def _decided(self, what: str, look: Callable[[], _Found]) -> _Found:
        """Look again and again until Numerai has decided.

        Raises
        ------
        SubmissionError
            When it has not by the deadline.
        """

        def undecided(state: tenacity.RetryCallState) -> bool:
            error = state.outcome.exception() if state.outcome else None
            return isinstance(error, (_UndecidedError, NetworkError, ProtocolError))

        def tell(state: tenacity.RetryCallState) -> None:
            log.info("%s: %s", what, state.outcome.exception() if state.outcome else "")

        retrying = tenacity.Retrying(
            retry=undecided,
            stop=tenacity.stop_after_delay(self._confirm_within),
            wait=tenacity.wait_exponential_jitter(
                multiplier=self._first_look, max=max(30.0, self._first_look), jitter=self._first_look
            ),
            before_sleep=tell,
            reraise=True,
        )
        try:
            found: _Found = retrying(look)
        except (_UndecidedError, NetworkError, ProtocolError) as error:
            msg = f"{what} was not confirmed within {self._confirm_within:g} s (NUMERAI_CONFIRMATION_SECONDS): {error}"
            raise SubmissionError(msg) from None
        return found

    def _look(self, model_id: str, created: str, round_number: int) -> Submission:
        """Give what Numerai says of a model's latest submission, once it is this one and decided."""
        listed = self._once("asking for submissions", lambda: self._api.submission_ids(model_id))
        models = self._once(
            "asking for the latest submissions",
            lambda: self._api.raw_query(_LATEST, authorization=True)["data"]["account"]["models"],
        )
        try:
            if created not in [entry["id"] for entry in listed or []]:
                msg = "it is not among the model's submissions"
                raise _UndecidedError(msg)
            latest = [
                Submission(created, int(entry["roundNumber"]), round_number, str(entry["status"]))
                for model in models
                if model["id"] == model_id
                for entry in model["latestSubmissions"] or []
                if entry["roundNumber"] is not None and int(entry["roundNumber"]) >= round_number
            ]
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{self._url}: cannot read the latest submissions ({type(error).__name__}: {error})"
            raise ProtocolError(msg) from None
        if not latest:
            msg = f"there is no submission for round {round_number} or a later one"
            raise _UndecidedError(msg)
        newest = max(latest, key=lambda submission: submission.round)
        _decide(newest.status, _ACCEPTED, f"submission {created}")
        return newest

    def _look_at_diagnostics(self, model_id: str, created: str) -> dict[str, Any]:
        found: Mapping[str, Any] = self._once(
            "asking for diagnostics", lambda: self._api.diagnostics(model_id, created) or {}
        )
        _decide(str(found.get("status")), _DIAGNOSED, f"diagnostics {created}", str(found.get("message") or ""))
        return dict(found)


def _decide(status: str, good: frozenset[str], what: str, message: str = "") -> None:
    """Go on when Numerai has accepted something.

    Raises
    ------
    SubmissionError
        When it has refused it.
    _UndecidedError
        When it has done neither.
    """
    word = status.strip().lower()
    if word in good:
        return
    if any(part in word for part in _REFUSED):
        msg = f"Numerai refused {what}: its status is {status!r}" + (f" ({message})" if message else "")
        raise SubmissionError(msg)
    msg = f"its status is {status!r}"
    raise _UndecidedError(msg)
