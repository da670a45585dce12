"""What the practice server answers to those who have an account: models, uploads, submissions, diagnostics, scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from graphql import GraphQLError, GraphQLResolveInfo

from practice.rounds import SeasonRound

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from practice.accounts import Account, Desk, Kind, Model, Submission
    from practice.faults import Kind as FaultKind
    from practice.scores import Judge
    from practice.season import Season

Info: TypeAlias = "GraphQLResolveInfo[Any]"

CLASSIC = 8
"""Numerai's number of the classic tournament, the only one there is here."""
SCORE = "CORR20V2"
"""How a round's main score is displayed."""
_SCORE_DAYS = 20
_BEGUN = "2020-01-01T00:00:00Z"


@dataclass(frozen=True)
class Caller:
    """Who asks, and for what.

    Attributes
    ----------
    desk : Desk
        Where predictions are handed in.
    judge : Judge
        Who scores them.
    authorization : str or None
        The header of this name.
    presign_upload : callable
        Makes the address to which a file of this name can be put.
    faults : collection of str
        What goes wrong on purpose.
    """

    desk: Desk
    judge: Judge
    authorization: str | None
    presign_upload: Callable[[str], str]
    faults: Collection[FaultKind] = ()


class AccountCalls:
    """Resolvers of what needs an account: graphql-core calls the method of a field's name.

    Attributes
    ----------
    keys_refused : bool
        Whether keys came that nobody has.

    Parameters
    ----------
    season : Season
    caller : Caller
    """

    def __init__(self, season: Season, caller: Caller) -> None:
        self._season = season
        self._caller = caller
        self._desk = caller.desk
        self.keys_refused = False

    def account(self, _info: Info) -> dict[str, Any]:
        """Give the account whose keys came with the query."""
        account = self._account()
        return {
            "id": f"practice-{account.public_id}",
            "username": account.public_id,
            "status": "VERIFIED",
            "availableNmr": "0",
            "mfaEnabled": False,
            "insertedAt": _BEGUN,
            "models": [self._model_fields(model) for model in account.models],
            "apiTokens": [
                {"name": "practice", "public_id": account.public_id, "scopes": ["upload_submission", "read_user_info"]}
            ],
        }

    def submission_upload_auth(
        self,
        _info: Info,
        filename: str,
        tournament: int | None = None,
        modelId: str | None = None,  # noqa: N803 - the protocol's name
    ) -> dict[str, str]:
        """Give an address to put predictions to."""
        return self._upload_auth("submission", filename, tournament, modelId)

    def diagnosticsUploadAuth(  # noqa: N802 - the protocol's name
        self,
        _info: Info,
        filename: str,
        tournament: int | None = None,
        modelId: str | None = None,  # noqa: N803
    ) -> dict[str, str]:
        """Give an address to put predictions of validation eras to."""
        return self._upload_auth("diagnostics", filename, tournament, modelId)

    def create_submission(
        self,
        _info: Info,
        filename: str,
        tournament: int,
        modelId: str | None = None,  # noqa: N803
        **_origin: Any,
    ) -> dict[str, Any]:
        """Take in what was put to an address, whether something was or not."""
        model = self._own_model(tournament, modelId)
        faults = self._caller.faults
        try:
            submission = self._desk.create_submission(
                model, filename, late="late" in faults, reject="rejected on request" if "reject" in faults else None
            )
        except KeyError:
            raise _unknown_upload(filename) from None
        return self._submission_fields(submission)

    def createDiagnostics(  # noqa: N802
        self,
        _info: Info,
        filename: str,
        tournament: int,
        modelId: str | None = None,  # noqa: N803
    ) -> dict[str, Any]:
        """Take in what is to be diagnosed."""
        model = self._own_model(tournament, modelId)
        try:
            return {"id": self._desk.create_diagnostics(model, filename)}
        except KeyError:
            raise _unknown_upload(filename) from None

    def submissions(self, _info: Info, modelId: str | None = None) -> list[dict[str, Any]]:  # noqa: N803
        """List what was handed in for a model of the account."""
        model = self._own_model(None, modelId)
        return [self._submission_fields(submission) for submission in self._desk.submissions(model.id)]

    def diagnostics(
        self,
        _info: Info,
        modelId: str,  # noqa: N803
        id: str | None = None,  # noqa: A002
    ) -> dict[str, Any] | None:
        """Give the diagnostics of what was handed in for them."""
        found = self._caller.judge.diagnostics(self._own_model(None, modelId).id, id)
        if found is not None and "pending" in self._caller.faults:
            return {"status": "pending"}
        return found

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
        """Give the scores of a model's rounds."""
        check_tournament(tournament)
        if self._desk.model(modelId) is None:
            msg = f"Model {modelId} not found"
            raise GraphQLError(msg)
        if displayName not in (None, SCORE) or day not in (None, _SCORE_DAYS) or resolved is False:
            return []
        return [
            _score_fields(score.submission, score.corr, score.percentile)
            for score in self._caller.judge.scores(modelId)[:lastNRounds]
        ]

    def _account(self) -> Account:
        authorization = self._caller.authorization
        account = self._desk.account(authorization)
        if account is None:
            self.keys_refused = authorization is not None
            msg = "Not authenticated"
            raise GraphQLError(msg)
        return account

    def _own_model(self, tournament: int | None, model_id: str | None) -> Model:
        account = self._account()
        check_tournament(tournament)
        model = account.model(model_id)
        if model is None:
            msg = f"Model {model_id} not found in this account"
            raise GraphQLError(msg)
        return model

    def _upload_auth(self, kind: Kind, filename: str, tournament: int | None, model_id: str | None) -> dict[str, str]:
        name = self._desk.expect(kind, self._own_model(tournament, model_id), filename)
        return {"filename": name, "url": self._caller.presign_upload(name)}

    def _model_fields(self, model: Model) -> dict[str, Any]:
        return {
            "id": model.id,
            "name": model.name,
            "tournament": CLASSIC,
            "v2Stake": None,
            # called only when the query asks for them
            "submissions": lambda _info: list(map(self._submission_fields, self._desk.submissions(model.id))),
            "latestSubmissions": lambda _info: list(map(self._submission_fields, self._desk.latest(model.id))),
        }

    def _submission_fields(self, submission: Submission) -> dict[str, Any]:
        return {
            "id": submission.id,
            "filename": submission.filename,
            "insertedAt": submission.inserted,
            "roundNumber": submission.round,
            "status": "pending" if "pending" in self._caller.faults else submission.status,
            "message": submission.message or None,
        }


def check_tournament(tournament: int | None) -> None:
    """Refuse any other tournament than classic.

    Raises
    ------
    GraphQLError
    """
    if tournament not in (None, CLASSIC):
        msg = f"Tournament {tournament} not found"
        raise GraphQLError(msg)


def _unknown_upload(filename: str) -> GraphQLError:
    return GraphQLError(f"No upload of the name {filename} was asked for")


def _score_fields(submission: Submission, corr: float, percentile: float) -> dict[str, Any]:
    season_round = SeasonRound(submission.round)
    resolves, closes, scores = (
        moment.strftime("%Y-%m-%dT%H:%M:%SZ")
        for moment in (season_round.resolves, season_round.closes, SeasonRound(submission.round + 4).opens)
    )
    return {
        "roundId": f"practice-{submission.round}",
        "submissionId": submission.id,
        "roundNumber": submission.round,
        "roundResolveTime": resolves,
        "roundScoreTime": scores,
        "roundCloseStakingTime": closes,
        "value": corr,
        "percentile": percentile,
        "displayName": SCORE,
        "version": "1",
        "date": resolves,
        "day": _SCORE_DAYS,
        "resolveDate": resolves,
        "resolved": True,
    }
