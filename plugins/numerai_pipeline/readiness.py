"""Whether the round of a scheduled run can be worked on: it is open, and its live data is its own.

The sensor ``wait_for_round`` and its trigger ask the same :class:`RoundWatch`; only how they wait differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from numerai_pipeline.downloads import BusyError, Patience
from numerai_pipeline.errors import NetworkError
from numerai_pipeline.round_days import latest_opening
from numerai_pipeline.settings import load_settings
from numerai_pipeline.tournament import Tournament

if TYPE_CHECKING:
    from collections.abc import Callable

    from numerai_pipeline.tournament import Round

_EARLY = timedelta(hours=1)
"""A round opens "no earlier than" its hour; should it do so after all, it still is its day's."""
_FRESH = timedelta(hours=12)
"""Live data put there this long before its round opens, or later, cannot be that of the day before."""


def utc_now() -> datetime:
    """Tell the present moment."""
    return datetime.now(UTC)


@dataclass(frozen=True)
class Readiness:
    """How things stand with a round.

    Attributes
    ----------
    state : {"ready", "waiting", "missed"}
        Whether it can be worked on, may be later, or never will be.
    reason : str
        Why, in a sentence.
    round : Round or None
        The round; None when it has not opened.
    """

    state: Literal["ready", "waiting", "missed"]
    reason: str
    round: Round | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values, as an event of a trigger and as XCom keep them."""
        found = self.round
        times = (
            {"round": found.number, "opens": found.open_time.isoformat(), "closes": found.close_time.isoformat()}
            if found
            else {"round": None, "opens": None, "closes": None}
        )
        return {"state": self.state, "reason": self.reason, **times}


class RoundWatch:
    """Looks at the round of one day, each time it is asked.

    Parameters
    ----------
    tournament : Tournament
        Whom to ask.
    day_opens : datetime
        When the day's round may first open, which is the end of a run's data interval; knows its time zone.
    version : str
        The dataset version whose live file is needed, or ``latest``.
    clock : callable, optional
        Tells the present moment.
    """

    def __init__(
        self,
        tournament: Tournament,
        day_opens: datetime,
        version: str = "latest",
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._tournament = tournament
        self._day_opens = day_opens.astimezone(UTC)
        self._version = version
        self._clock = clock
        self._round: Round | None = None

    @property
    def day(self) -> str:
        """The day in words."""
        return f"{self._day_opens:%A %Y-%m-%d}"

    @property
    def deadline(self) -> datetime:
        """When waiting ends: the round closes; as long as it has not opened, when it is too late for it to."""
        return self._round.close_time if self._round else latest_opening(self._day_opens)

    @property
    def seconds_left(self) -> float:
        """Seconds until the deadline; 0 or less when it has passed."""
        return (self.deadline - self._clock()).total_seconds()

    def look(self) -> Readiness:
        """Ask the server how things stand.

        Raises
        ------
        NetworkError, ProtocolError
            The server gives no answer, or none that can be read: look again later.
        BadInputError
            What is needed does not exist: looking again cannot help.
        """
        until = latest_opening(self._day_opens)
        found = self._tournament.round_opened_between(self._day_opens - _EARLY, until)
        self._round = found
        now = self._clock()
        if now >= self.deadline:
            return self.missed()
        if found is None:
            return Readiness("waiting", f"no round has opened on {self.day} yet")
        if now < found.open_time:
            return Readiness("waiting", f"{found} has not opened yet", found)
        if not self._live_is_new(found):
            return Readiness("waiting", f"{found} is open, but its live data is not there yet", found)
        return Readiness("ready", f"{found} is open and its live data is there", found)

    def missed(self, error: BaseException | None = None) -> Readiness:
        """Say that the round was missed, what stood in the way last, and what can be done now."""
        found = self._round
        last = f"; the last look failed: {error}" if error else ""
        if found:
            reason = (
                f"missed {found}: it closed at {found.close_time:%a %Y-%m-%d %H:%M} UTC before its live data was seen"
                f"{last}. Submissions no longer count for it. To work on it all the same, as long as its data is"
                f""" served, trigger the DAG by hand with the round's number: {{"round": {found.number}}}"""
            )
        else:
            until = latest_opening(self._day_opens)
            reason = (
                f"missed the round of {self.day}: none was seen to open until {until:%a %Y-%m-%d %H:%M} UTC{last}."
                ' If it opens later, trigger the DAG by hand with its number, as in {"round": 1335}; without a number,'
                " a run by hand works on the current round"
            )
        return Readiness("missed", reason, found)

    def _live_is_new(self, the_round: Round) -> bool:
        """Whether the round's live file is its own, and not still that of the round before.

        A server may keep sending the old file for the new round, for a while, or its newest for every round, always.
        So either sign will do: the file was put there for this round, or it is not that of the round before.
        """
        version = self._tournament.version_for(self._version, the_round.number)
        live = version and self._tournament.remote_live(version, the_round.number)
        if not version or not live:
            return False
        if live.modified is not None and live.modified >= the_round.open_time - _FRESH:
            return True
        try:
            before = self._tournament.remote_live(version, the_round.number - 1)
        except BusyError:
            raise
        except NetworkError:
            if live.modified is None:
                raise
            # a store may refuse what it no longer has, which proves nothing; the file's own date speaks against it
            return False
        return before is None or live.is_other(before)


def watch_round(
    source: Literal["numerai", "practice"],
    day_opens: datetime,
    version: str,
    clock: Callable[[], datetime] = utc_now,
) -> RoundWatch:
    """Watch the round of a day at the address that the settings give for a source.

    Every look is a single try: whoever waits decides when to look again.
    """
    settings = load_settings()
    address = settings.api_address(source)
    tournament = Tournament(address, timeout=settings.http_timeout_seconds, patience=Patience(attempts=1))
    return RoundWatch(tournament, day_opens, version, clock)
