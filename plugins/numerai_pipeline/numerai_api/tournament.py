"""Rounds of Numerai's classic tournament: the current one, the one of a moment, and a round's payout."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from numerai_pipeline.core.errors import NotFoundError, ProtocolError, RoundClosedError
from numerai_pipeline.core.payout import PaidScore
from numerai_pipeline.numerai_api.client import CLASSIC, NoOpenRoundError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numerai_pipeline.numerai_api.client import ApiClient

log = logging.getLogger(__name__)

_CURRENT = 0

# only the needed fields: numerapi's list_rounds queries some forty fields of every round since the first
_ROUNDS = """
    query($tournament: Int $number: Int) {
        rounds(tournament: $tournament number: $number) { number openTime closeTime closeStakingTime }
    }"""
_PAYOUTS = """
    query($tournament: Int $number: Int) {
        rounds(tournament: $tournament number: $number) {
            number roundScoreConfigs { name displayName isPayout totalScoreDays defaultMultiplier }
        }
    }"""


@dataclass(frozen=True)
class Round:
    """A round of the tournament.

    Attributes
    ----------
    number : int
    open_time, close_time : datetime
        Submissions between these are on time; both in UTC.
    """

    number: int
    open_time: datetime
    close_time: datetime

    def __str__(self) -> str:
        return f"round {self.number} ({self.open_time:%a %Y-%m-%d %H:%M} to {self.close_time:%a %Y-%m-%d %H:%M} UTC)"

    def to_json(self) -> dict[str, Any]:
        """Give plain values, as XCom stores them: ``round``, ``opens``, ``closes`` (ISO 8601)."""
        return {"round": self.number, "opens": self.open_time.isoformat(), "closes": self.close_time.isoformat()}


class Tournament:
    """Rounds of the classic tournament, or of the simulated one.

    Parameters
    ----------
    client : ApiClient
    """

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    def current_round(self) -> Round | None:
        """Give the round that Numerai calls current; None when the server answers that there is none at present."""
        try:
            found = self._rounds(_CURRENT)
        except NoOpenRoundError:
            return None
        return found[0] if found else None

    def round_by_number(self, number: int) -> Round:
        """Give the round of this number.

        Raises
        ------
        NotFoundError
            When there is none.
        """
        for found in self._rounds(number):
            if found.number == number:
                return found
        current = self.current_round()
        msg = f"round {number} does not exist" + (f"; the current one is {current}" if current else "")
        raise NotFoundError(msg)

    def round_at(self, moment: datetime) -> Round | None:
        """Give the round a moment belongs to; None when there is none (yet).

        A round opens "no earlier than" its hour, so a run scheduled for that hour may be a little early: a moment
        belongs to the round that was open then and opened on the same day, else to the round that opens later that
        day, else to one still open from an earlier day.

        Parameters
        ----------
        moment : datetime
            With a time zone.
        """
        if moment.tzinfo is None:
            msg = f"{moment.isoformat()} has no time zone"
            raise ValueError(msg)
        moment = moment.astimezone(UTC)
        rounds = self._rounds(None)
        open_then = [found for found in rounds if found.open_time <= moment < found.close_time]
        opened_today = [found for found in open_then if found.open_time.date() == moment.date()]
        opening_today = [
            found for found in rounds if found.open_time > moment and found.open_time.date() == moment.date()
        ]
        # from noon on, the day's round comes before a round still open from the day before
        candidates = opened_today or (opening_today if moment.hour >= 12 else []) or open_then or opening_today
        return max(candidates, key=lambda found: found.open_time, default=None)

    def round_opened_between(self, start: datetime, end: datetime) -> Round | None:
        """Give the round that opens at or after ``start`` and before ``end``; None when it is not announced yet.

        Cheap as long as there is no later round: the list of all rounds is queried only when the current round does not
        decide.
        """
        current = self.current_round()
        if current is not None and current.open_time < start:
            return None
        try:
            candidates = self._rounds(None) if current is None or current.open_time >= end else [current]
        except NoOpenRoundError:
            return None
        return min(
            (found for found in candidates if start <= found.open_time < end),
            key=lambda found: found.open_time,
            default=None,
        )

    def find_round(self, round_number: int | None, run_date: datetime | None) -> Round | None:
        """Give the round of a run: of the given number, else of its date, else the current one.

        None means that the round of the date has not opened yet, or never did; or, without number and date, that no
        round is current.
        """
        if round_number is not None:
            return self.round_by_number(round_number)
        if run_date is not None:
            return self.round_at(run_date)
        return self.current_round()

    def required_round(self, round_number: int | None, run_date: datetime | None) -> Round:
        """Give the round of a run as :meth:`find_round` does.

        Raises
        ------
        NotFoundError
            When there is none of this number or date.
        RoundClosedError
            When neither is given and no round is current.
        """
        found = self.find_round(round_number, run_date)
        if found is not None:
            return found
        if run_date is not None:
            msg = f"no round was open at the run's date {run_date.isoformat()}: set the parameter 'round' to its number"
            raise NotFoundError(msg)
        msg = f"{self._client.url}: no round is open at present: wait for the next one, or set the parameter 'round'"
        raise RoundClosedError(msg)

    def payout(self, round_number: int) -> tuple[PaidScore, ...]:
        """Give the scores that a round pays on; none where the server has no answer, which stops no run."""
        variables = {"tournament": CLASSIC, "number": round_number}
        try:
            rounds = self._client.call("querying the payout", lambda: self._client.query(_PAYOUTS, variables)["rounds"])
            scores = [score for found in rounds for score in found["roundScoreConfigs"] if score["isPayout"]]
            return tuple(PaidScore.from_api(score) for score in scores)
        except (ProtocolError, KeyError, TypeError, ValueError) as error:
            log.warning("the payout of round %d is unknown: %s", round_number, error)
            return ()

    def _rounds(self, number: int | None) -> list[Round]:
        variables = {"tournament": CLASSIC, "number": number}
        answer = self._client.call("querying rounds", lambda: self._client.query(_ROUNDS, variables)["rounds"])
        try:
            return [_parse_round(fields) for fields in answer or [] if fields and fields["openTime"]]
        except (KeyError, TypeError, ValueError) as error:
            msg = f"{self._client.url}: cannot read the list of rounds ({type(error).__name__}: {error})"
            raise ProtocolError(msg) from None


def _parse_round(fields: Mapping[str, Any]) -> Round:
    # submissions count until the deadline for stakes (numerapi's check_round_open uses it, too)
    closes = fields.get("closeStakingTime") or fields["closeTime"]
    return Round(int(fields["number"]), _parse_moment(fields["openTime"]), _parse_moment(closes))


def _parse_moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
