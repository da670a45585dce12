"""Readiness of the round of a day: it is open, and its live data is its own.

The sensor ``wait_for_round`` and its trigger use the same :class:`RoundPoller`; they differ only in how they wait.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from numerai_pipeline.core.errors import NetworkError
from numerai_pipeline.core.round_calendar import latest_opening
from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.numerai_api.client import ApiClient
from numerai_pipeline.numerai_api.datasets import Datasets
from numerai_pipeline.numerai_api.http import ServerBusyError
from numerai_pipeline.numerai_api.retries import RetryPolicy, utc_now
from numerai_pipeline.numerai_api.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_pipeline.numerai_api.tournament import Round

_OPENING_TOLERANCE = timedelta(hours=1)
"""A round opens "no earlier than" its hour; a round that opens a little earlier still is the day's."""
_FRESHNESS_WINDOW = timedelta(hours=12)
"""Live data stored this long before its round opens, or later, cannot be that of the day before."""


@dataclass(frozen=True)
class RoundStatus:
    """State of a round.

    Attributes
    ----------
    state : {"ready", "waiting", "missed"}
        Whether a run can start now, may start later, or never will.
    reason : str
        Why, in a sentence.
    round : Round or None
        The round; None when it has not opened.
    """

    state: Literal["ready", "waiting", "missed"]
    reason: str
    round: Round | None = None

    def to_json(self) -> dict[str, Any]:
        """Give plain values, as an event of a trigger and XCom store them."""
        times = self.round.to_json() if self.round else {"round": None, "opens": None, "closes": None}
        return {"state": self.state, "reason": self.reason, **times}


class RoundPoller:
    """Queries the state of the round of one day.

    Parameters
    ----------
    tournament : Tournament
    datasets : Datasets
    day_opens : datetime
        When the day's round may first open, which is the end of a run's data interval; with a time zone.
    version : str
        The dataset version whose live file is needed, or ``latest``.
    clock : callable, optional
        Gives the present moment.
    """

    def __init__(
        self,
        tournament: Tournament,
        datasets: Datasets,
        day_opens: datetime,
        version: str = "latest",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tournament = tournament
        self._datasets = datasets
        self._day_opens = day_opens.astimezone(UTC)
        self._version = version
        self._clock = clock
        self._round: Round | None = None

    @property
    def day(self) -> str:
        """The day as text, such as ``Saturday 2026-08-15``."""
        return f"{self._day_opens:%A %Y-%m-%d}"

    @property
    def deadline(self) -> datetime:
        """When waiting ends: the round closes; as long as it has not opened, when it is too late for it to open."""
        return self._round.close_time if self._round else latest_opening(self._day_opens)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 or less after it."""
        return (self.deadline - self._clock()).total_seconds()

    def poll(self) -> RoundStatus:
        """Query the state once.

        Raises
        ------
        NetworkError, ProtocolError
            The server gives no answer, or none that can be read: poll again later.
        BadInputError
            A requested version does not exist: polling again cannot help.
        """
        found = self._tournament.round_opened_between(
            self._day_opens - _OPENING_TOLERANCE, latest_opening(self._day_opens)
        )
        self._round = found
        now = self._clock()
        if now >= self.deadline:
            return self.missed_status()
        if found is None:
            return RoundStatus("waiting", f"no round has opened on {self.day} yet")
        if now < found.open_time:
            return RoundStatus("waiting", f"{found} has not opened yet", found)
        if not self._has_fresh_live_data(found):
            return RoundStatus("waiting", f"{found} is open, but its live data is not available yet", found)
        return RoundStatus("ready", f"{found} is open and its live data is available", found)

    def missed_status(self, error: BaseException | None = None) -> RoundStatus:
        """Give the state of a missed round: the last obstacle, and the remedy."""
        found = self._round
        last = f"; the last query failed: {error}" if error else ""
        if found:
            reason = (
                f"missed {found}: it closed at {found.close_time:%a %Y-%m-%d %H:%M} UTC before its live data was seen"
                f"{last}. Submissions no longer count for it. To run it all the same, as long as its data is"
                f""" served, trigger the DAG by hand with the round's number: {{"round": {found.number}}}"""
            )
        else:
            until = latest_opening(self._day_opens)
            reason = (
                f"missed the round of {self.day}: none was seen to open until {until:%a %Y-%m-%d %H:%M} UTC{last}."
                ' If it opens later, trigger the DAG by hand with its number, as in {"round": 1334}; without a number,'
                " a manual run uses the current round"
            )
        return RoundStatus("missed", reason, found)

    def _has_fresh_live_data(self, the_round: Round) -> bool:
        """Whether the round's live file is its own, and not still that of the round before.

        A server may keep sending the old file for the new round, for a while, or its newest for every round, always.
        So either sign suffices: the file was stored for this round, or it is not that of the round before.
        """
        version = self._datasets.version_for(self._version, the_round.number)
        live = version and self._datasets.remote_live(version, the_round.number)
        if not version or not live:
            return False
        if live.modified is not None and live.modified >= the_round.open_time - _FRESHNESS_WINDOW:
            return True
        try:
            before = self._datasets.remote_live(version, the_round.number - 1)
        except ServerBusyError:
            raise
        except NetworkError:
            if live.modified is None:
                raise
            # a storage may refuse a file it no longer has, which proves nothing; the file's date speaks against it
            return False
        return before is None or live.differs_from(before)


def round_poller(
    source: Literal["numerai", "practice"],
    day_opens: datetime,
    version: str,
    clock: Callable[[], datetime] = utc_now,
) -> RoundPoller:
    """Build the poller of a day's round, at the address that the settings give for a source.

    Every poll is a single attempt: the caller decides when to poll again.
    """
    settings = load_settings()
    client = ApiClient(
        settings.api_address(source), timeout=settings.http_timeout_seconds, policy=RetryPolicy(attempts=1)
    )
    tournament = Tournament(client)
    return RoundPoller(tournament, Datasets(client, tournament), day_opens, version, clock)
