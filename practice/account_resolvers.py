"""Resolvers of the queries that need keys: account, models, uploads, submissions, diagnostics; and of scores."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from practice.errors import SimulatorError, missing_scope, not_authenticated, session_not_found
from practice.payouts import paid_corr
from practice.submission_store import LATEST_ROUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from graphql import GraphQLResolveInfo

    from practice.accounts import Account, Model, Scope
    from practice.faults import Fault
    from practice.faults import Kind as FaultKind
    from practice.scores import Score, Scorer
    from practice.season import Season
    from practice.submission_store import Kind, RoundEntry, Submission, SubmissionStore

Info: TypeAlias = "GraphQLResolveInfo[Any]"

CLASSIC = 8
"""Numerai's number of the classic tournament, the only simulated one."""
_INSERTED = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class RequestContext:
    """A request's context.

    Attributes
    ----------
    store : SubmissionStore
    scorer : Scorer
    authorization : str or None
        The header of this name.
    presign_upload : callable
        Makes the address to which a file of this name can be put.
    faults : mapping
        Faults that apply to the request, by kind.
    """

    store: SubmissionStore
    scorer: Scorer
    authorization: str | None
    presign_upload: Callable[[str], str]
    faults: Mapping[FaultKind, Fault] = field(default_factory=dict)


class AccountResolvers:
    """Resolvers: graphql-core calls the method of a field's name.

    Scopes are checked as Numerai's documentation describes them: ``read_user_info`` for the account and its models,
    ``read_submission_info`` for submissions and diagnostics, ``upload_submission`` for uploads.

    Parameters
    ----------
    season : Season
    context : RequestContext
    """

    def __init__(self, season: Season, context: RequestContext) -> None:
        self._season = season
        self._context = context
        self._store = context.store

    def account(self, _info: Info) -> dict[str, Any]:
        """Return the account of the keys."""
        account = self._account("read_user_info")
        token = {"name": "practice", "public_id": account.public_id, "scopes": list(account.scopes)}
        return {
            "id": f"practice-{account.public_id}",
            "username": account.public_id,
            "status": "VERIFIED",
            "availableNmr": "0",
            "mfaEnabled": False,
            "insertedAt": _INSERTED,
            "models": [self._model_fields(model) for model in account.models],
            "apiTokens": [token],
        }

    def submission_upload_auth(
        self,
        _info: Info,
        filename: str,
        tournament: int | None = None,
        modelId: str | None = None,  # noqa: N803 - the protocol's name
    ) -> dict[str, str]:
        """Return an address for predictions."""
        return self._upload_auth("submission", filename, tournament, modelId)

    def diagnosticsUploadAuth(  # noqa: N802 - the protocol's name
        self,
        _info: Info,
        filename: str,
        tournament: int | None = None,
        modelId: str | None = None,  # noqa: N803
    ) -> dict[str, str]:
        """Return an address for predictions of validation eras."""
        return self._upload_auth("diagnostics", filename, tournament, modelId)

    def create_submission(
        self,
        _info: Info,
        filename: str,
        tournament: int,
        modelId: str | None = None,  # noqa: N803
        **_origin: Any,
    ) -> dict[str, Any]:
        """Create a submission from an upload.

        A missing or invalid file is refused here. Numerai's texts for that are not published: the simulator answers
        those of numerai-tools, which has Numerai's checks.
        """
        model = self._own_model("upload_submission", tournament, modelId)
        faults = self._context.faults
        if "reject" in faults:
            raise SimulatorError(faults["reject"].message)
        try:
            submission = self._store.create_submission(model, filename, late="late" in faults)
        except KeyError:
            raise _unknown_upload(filename) from None
        except ValueError as error:
            raise SimulatorError(str(error)) from None
        return _submission_fields(submission)

    def createDiagnostics(  # noqa: N802
        self,
        _info: Info,
        filename: str,
        tournament: int,
        modelId: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """Score an upload; a missing or invalid file is refused, as in :meth:`create_submission`."""
        model = self._own_model("upload_submission", tournament, modelId)
        try:
            result = self._context.scorer.diagnostics(self._store.uploaded("diagnostics", model, filename))
        except KeyError:
            raise _unknown_upload(filename) from None
        except ValueError as error:
            raise SimulatorError(str(error)) from None
        return {"id": self._store.add_diagnostics(model, result)}

    def submissions(self, _info: Info, modelId: str | None = None) -> list[dict[str, Any]]:  # noqa: N803
        """List the submissions of a model of the account."""
        model = self._own_model("read_submission_info", None, modelId)
        return [_submission_fields(submission) for submission in self._store.submissions(model.id)]

    def diagnostics(
        self,
        _info: Info,
        modelId: str,  # noqa: N803
        id: str | None = None,  # noqa: A002
    ) -> list[dict[str, Any]]:
        """Return results of diagnostics: a list of one, or none."""
        model = self._own_model("read_submission_info", None, modelId)
        found = self._store.diagnostics(model.id, id)
        return [] if found is None or "unlisted" in self._context.faults else [found]

    def submissionScores(  # noqa: N802
        self,
        _info: Info,
        modelId: str,  # noqa: N803
        displayName: str | None = None,  # noqa: N803
        day: int | None = None,
        resolved: bool | None = None,
        tournament: int | None = None,
        lastNRounds: int | None = None,  # noqa: N803
        **_others: Any,
    ) -> list[dict[str, Any]]:
        """Return the scores of a model's rounds."""
        check_tournament(tournament)
        if self._store.model(modelId) is None:
            raise _unknown_model(modelId)
        if resolved is False:
            return []
        found = [self._score_fields(score) for score in self._context.scorer.scores(modelId)[:lastNRounds]]
        return [score for score in found if displayName in (None, score["displayName"]) and day in (None, score["day"])]

    def _account(self, scope: Scope) -> Account:
        authorization = self._context.authorization
        if authorization is None:
            raise not_authenticated()
        account = self._store.account(authorization)
        if account is None:
            raise session_not_found()
        if scope not in account.scopes:
            raise missing_scope(scope)
        return account

    def _own_model(self, scope: Scope, tournament: int | None, model_id: str | None) -> Model:
        account = self._account(scope)
        check_tournament(tournament)
        model = account.model(model_id)
        if model is None:
            raise _unknown_model(model_id)
        return model

    def _upload_auth(self, kind: Kind, filename: str, tournament: int | None, model_id: str | None) -> dict[str, str]:
        name = self._store.expect_upload(kind, self._own_model("upload_submission", tournament, model_id), filename)
        return {"filename": name, "url": self._context.presign_upload(name)}

    def _model_fields(self, model: Model) -> dict[str, Any]:
        # graphql-core calls the two functions only when the query has their fields
        def submissions(_info: Info) -> list[dict[str, Any]]:
            return self.submissions(_info, model.id)

        def latest(_info: Info, latestNRounds: int = LATEST_ROUNDS) -> list[dict[str, Any]]:  # noqa: N803
            self._account("read_submission_info")
            hide_newest = "unlisted" in self._context.faults
            entries = self._store.latest(model.id, latestNRounds, hide_newest=hide_newest)
            return [self._entry_fields(entry) for entry in entries]

        return {
            "id": model.id,
            "name": model.name,
            "tournament": CLASSIC,
            "v2Stake": None,
            "submissions": submissions,
            "latestSubmissions": latest,
        }

    def _entry_fields(self, entry: RoundEntry) -> dict[str, Any]:
        the_round = self._season.round(entry.round)
        submission = entry.submission
        return {
            "id": submission and submission.id,
            "roundNumber": entry.round,
            "roundOpen": the_round.opens.date().isoformat(),
            "roundCloseStaking": the_round.closes.date().isoformat(),
            "status": entry.status,
            "filename": submission and submission.filename,
            "timestamp": submission and moment_text(datetime.fromisoformat(submission.inserted)),
        }

    def _score_fields(self, score: Score) -> dict[str, Any]:
        the_round = self._season.round(score.entry.round)
        resolves = moment_text(the_round.resolves)
        corr = paid_corr(the_round)
        return {
            "roundId": f"practice-{the_round.number}",
            "submissionId": score.submission.id,
            "roundNumber": the_round.number,
            "roundResolveTime": resolves,
            "roundScoreTime": moment_text(self._season.round(the_round.number + 4).opens),
            "roundCloseStakingTime": moment_text(the_round.closes),
            "value": score.corr,
            "percentile": score.percentile,
            "displayName": corr.display_name,
            "version": "1",
            "date": resolves,
            "day": corr.days,
            "resolveDate": resolves,
            "resolved": True,
        }


def check_tournament(tournament: int | None) -> None:
    """Refuse tournaments other than classic.

    Raises
    ------
    SimulatorError
    """
    if tournament not in (None, CLASSIC):
        msg = f"tournament {tournament} not found"
        raise SimulatorError(msg)


def moment_text(moment: datetime) -> str:
    """Format a moment as Numerai does, in UTC."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _submission_fields(submission: Submission) -> dict[str, Any]:
    """Describe a submission; ``status`` has been null at Numerai since 2023."""
    return {
        "id": submission.id,
        "filename": submission.filename,
        "insertedAt": moment_text(datetime.fromisoformat(submission.inserted)),
        "roundNumber": submission.round,
        "status": None,
        "message": None,
    }


def _unknown_model(model_id: str | None) -> SimulatorError:
    return SimulatorError(f"model {model_id} not found")


def _unknown_upload(filename: str) -> SimulatorError:
    return SimulatorError(f"no upload of the name {filename} was requested")
