"""The GraphQL schema of Numerai, executed by graphql-core, and the resolvers that need no account.

The schema has every field that numerapi 3.1.1 queries in the calls named here, so its queries run unchanged. Resolvers
that need an account are in ``account_resolvers.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from graphql import build_schema, graphql_sync

from practice.account_resolvers import CLASSIC, AccountResolvers, Info, check_tournament, moment_text
from practice.diagnostics_fields import diagnostics_types
from practice.errors import SimulatorError, formatted_error
from practice.payouts import FIRST_60_DAY_ROUND, RoundScore, paid_target, round_scores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from practice.account_resolvers import RequestContext
    from practice.rounds import SeasonRound
    from practice.season import Season

CURRENT = 0
"""Numerai's number for the current round."""

SCHEMA = build_schema(
    '''
    """An ISO 8601 moment in UTC."""
    scalar DateTime

    enum RoundStatus { UPCOMING OPEN RESOLVING RESOLVED }

    type Query {
        "Names of a round's files; the current round's without a number."
        listDatasets(round: Int, tournament: Int): [String!]!
        "A presigned address of a file, for GET only."
        dataset(filename: String!, round: Int, tournament: Int): String!
        "Rounds, the newest first; number 0 is the current one."
        rounds(tournament: Int, number: Int, target: String, status: RoundStatus, limit: Int): [Round]!
        "The account of the keys. Null with an error, as in Numerai's answers."
        account: Account
        "A presigned address for PUT, and the filename to create a submission with."
        submission_upload_auth(filename: String!, tournament: Int, modelId: String): UploadAuth
        diagnosticsUploadAuth(filename: String!, tournament: Int, modelId: String): UploadAuth
        "Submissions of a model, the newest first."
        submissions(modelId: String): [Submission!]
        diagnostics(id: String, modelId: String!): [Diagnostics!]
        "Scores of a model's rounds, the newest first; needs no keys."
        submissionScores(
            modelId: ID!, displayName: String, version: String, day: Int, resolved: Boolean, tournament: Int,
            lastNRounds: Int, distinctOnRound: Boolean
        ): [SubmissionScore!]!
    }

    type Account {
        id: ID!
        username: String!
        email: String
        status: String
        walletAddress: String
        availableNmr: String
        mfaEnabled: Boolean!
        insertedAt: DateTime!
        models: [Model!]!
        apiTokens: [ApiToken!]!
    }

    type ApiToken { name: String, public_id: String!, scopes: [String!]! }

    type Model {
        id: ID!
        name: String!
        tournament: Int!
        submissions: [Submission!]!
        "One entry a round, the newest round first: the current round, latestNRounds before it, and the next if queued."
        latestSubmissions(latestNRounds: Int): [LatestSubmission!]!
        v2Stake: Stake
    }

    type Stake { status: String, txHash: String }

    type UploadAuth { filename: String!, url: String! }

    type Submission {
        id: ID!
        filename: String!
        insertedAt: DateTime!
        roundNumber: Int!
        status: String
        message: String
    }

    type LatestSubmission {
        id: ID
        roundNumber: Int!
        roundOpen: String
        roundCloseStaking: String
        "on-time, late, queued or none"
        status: String!
        filename: String
        timestamp: DateTime
    }

    type SubmissionScore {
        roundId: ID!
        submissionId: ID!
        roundNumber: Int!
        roundResolveTime: DateTime
        roundScoreTime: DateTime
        roundCloseStakingTime: DateTime
        value: Float
        percentile: Float
        displayName: String!
        version: String
        date: DateTime
        day: Int
        resolveDate: DateTime
        resolved: Boolean
    }

    type Mutation {
        "Submit the file that was put to the address of submission_upload_auth."
        create_submission(
            filename: String!, tournament: Int!, modelId: String, triggerId: String, source: String, dataDatestamp: Int
        ): Submission
        "Score the file that was put to the address of diagnosticsUploadAuth."
        createDiagnostics(filename: String!, tournament: Int!, modelId: String): Diagnostics
    }

    type Round {
        id: ID!
        tournament: Int!
        number: Int!
        target: String
        openTime: DateTime!
        closeTime: DateTime!
        closeStakingTime: DateTime!
        scoreTime: DateTime!
        resolveTime: DateTime!
        resolvedGeneral: Boolean!
        resolvedStaking: Boolean!
        payoutFactor: String
        stakeThreshold: String
        dataDatestamp: Int
        roundScoreConfigs: [RoundScoreConfig!]!
    }

    type RoundScoreConfig {
        id: ID!
        scoreConfigId: ID!
        roundNumberStart: Int
        roundNumberEnd: Int
        name: String!
        version: String
        displayName: String!
        totalScoreDays: Int
        returnsLagDays: Int
        dataDelayDays: Int
        universe: String
        isCanonScore: Boolean!
        isPayout: Boolean!
        scoringStart: DateTime
        scoringEnd: DateTime
        minMultiplier: Float
        maxMultiplier: Float
        defaultMultiplier: Float
        clipThreshold: Float
        stakeThreshold: String
        payoutFactor: String
    }
'''
    + diagnostics_types()
)
# graphql-core passes arguments by name to a function whose first parameter has this name, too
SCHEMA.type_map["Mutation"].fields["create_submission"].args["source"].out_name = "sent_by"  # type: ignore[attr-defined]


class Tournament(AccountResolvers):
    """Resolvers of the schema's queries: graphql-core calls the method of a field's name.

    Parameters
    ----------
    season : Season
    presign : callable
        Makes the address of a file (name, round number).
    context : RequestContext
    """

    def __init__(self, season: Season, presign: Callable[[str, int], str], context: RequestContext) -> None:
        super().__init__(season, context)
        self._presign = presign

    def listDatasets(  # noqa: N802 - the protocol's name
        self,
        _info: Info,
        round: int | None = None,  # noqa: A002
        tournament: int | None = None,
    ) -> list[str]:
        """List the files of a round."""
        self._served_round(round, tournament)
        return self._season.names()

    def dataset(
        self,
        _info: Info,
        filename: str,
        round: int | None = None,  # noqa: A002
        tournament: int | None = None,
    ) -> str:
        """Return the address of a file."""
        number = self._served_round(round, tournament)
        if filename not in self._season.names():
            msg = f"dataset {filename} not found"
            raise SimulatorError(msg)
        return self._presign(filename, number)

    def rounds(
        self,
        _info: Info,
        tournament: int | None = None,
        number: int | None = None,
        target: str | None = None,
        status: str | None = None,
        limit: int | None = None,
    ) -> list[dict[str, Any]]:
        """List the rounds that pass the filters."""
        check_tournament(tournament)
        now = self._season.now()
        found = self._season.rounds()
        if number is not None:
            wanted = self._season.current_round().number if number == CURRENT else number
            found = [candidate for candidate in found if candidate.number == wanted]
        if status is not None:
            found = [candidate for candidate in found if candidate.status(now) == status]
        if target is not None:
            found = [candidate for candidate in found if paid_target(candidate) == target]
        return [self._round_fields(candidate, now) for candidate in found[:limit]]

    def _round_fields(self, the_round: SeasonRound, now: datetime) -> dict[str, Any]:
        resolved = the_round.status(now) == "RESOLVED"
        scoring_start = self._season.round(the_round.number + 4).opens

        # graphql-core calls it only when the query has the field: a list of all rounds is long
        def score_configs(_info: Info) -> list[dict[str, Any]]:
            return [_score_config_fields(score, the_round, scoring_start) for score in round_scores(the_round)]

        return {
            "id": f"practice-{the_round.number}",
            "tournament": CLASSIC,
            "number": the_round.number,
            "target": paid_target(the_round),
            "openTime": moment_text(the_round.opens),
            "closeTime": moment_text(the_round.closes),
            "closeStakingTime": moment_text(the_round.closes),
            "scoreTime": moment_text(scoring_start),
            "resolveTime": moment_text(the_round.resolves),
            "resolvedGeneral": resolved,
            "resolvedStaking": resolved,
            "payoutFactor": "1" if the_round.number >= FIRST_60_DAY_ROUND else "0.1",
            "stakeThreshold": "72000",
            "dataDatestamp": int(the_round.day.strftime("%Y%m%d")),
            "roundScoreConfigs": score_configs,
        }

    def _served_round(self, number: int | None, tournament: int | None) -> int:
        check_tournament(tournament)
        if number is None or number == CURRENT:
            return self._season.current_round().number
        if not self._season.is_served(number):
            msg = f"data of round {number} is not available"
            raise SimulatorError(msg)
        return number


def execute(tournament: Tournament, query: str, variables: Mapping[str, Any] | None) -> dict[str, Any]:
    """Execute a query and return the reply's body: ``data``, and ``errors`` when there are any."""
    result = graphql_sync(SCHEMA, query, root_value=tournament, variable_values=dict(variables or {}))
    errors = {"errors": [formatted_error(error) for error in result.errors]} if result.errors else {}
    return {"data": result.data, **errors}


def _score_config_fields(score: RoundScore, the_round: SeasonRound, scoring_start: datetime) -> dict[str, Any]:
    is_atomic = score.days == 60  # rounds on 60-day scores pay with a factor of 1 and a clip of 1
    return {
        "id": f"practice-{the_round.number}-{score.display_name}",
        "scoreConfigId": f"practice-{score.display_name}",
        "roundNumberStart": 1,
        "roundNumberEnd": None,
        "name": score.name,
        "version": "1",
        "displayName": score.display_name,
        "totalScoreDays": score.days,
        "returnsLagDays": 2,
        "dataDelayDays": 2,
        "universe": "v5",
        "isCanonScore": True,
        "isPayout": score.is_payout,
        "scoringStart": moment_text(scoring_start),
        "scoringEnd": moment_text(the_round.resolves),
        "minMultiplier": 0.0,
        "maxMultiplier": score.multiplier,
        "defaultMultiplier": score.multiplier,
        "clipThreshold": 1.0 if is_atomic else 0.05,
        "stakeThreshold": "72000",
        "payoutFactor": "1" if is_atomic else "0.1",
    }
