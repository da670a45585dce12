"""A simulated tournament on a clock that a test moves, and time that passes only while the tested code sleeps."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season

if TYPE_CHECKING:
    from practice.faults import Fault, FaultQueue

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
NEWEST = 1339


class NumeraisRound(SeasonRound):
    """Opens at 13:12; a weekday's stays open for an hour, Saturday's for two days."""

    late: dict[int, timedelta] = {}  # noqa: RUF012 - set by tests

    @property
    def opens(self) -> datetime:
        return super().opens + timedelta(hours=1, minutes=12) + self.late.get(self.number, timedelta(0))

    @property
    def closes(self) -> datetime:
        return self.opens + timedelta(hours=48 if self.weekday == 4 else 1)


class ClockedSeason(Season):
    """A season whose clock, rounds and live data a test controls.

    Attributes
    ----------
    clock : datetime
        The season's time.
    kind : callable
        Makes a round from its number; ``partial(StrictRound, seed=...)`` gives the simulator's strict calendar.
    cancelled : set of int
        Rounds that never open.
    lagging : set of int
        Rounds for which the live data of the round before is still served.
    sends_newest : bool
        Whether the newest live data is served for every round.
    """

    def __init__(self, directory: Path, clock: datetime) -> None:
        self.clock = clock
        self.kind: Callable[[int], SeasonRound] = NumeraisRound
        self.cancelled: set[int] = set()
        self.lagging: set[int] = set()
        self.sends_newest = False
        super().__init__(directory, SIZE)

    def now(self) -> datetime:
        return self.clock

    def round(self, number: int) -> SeasonRound:
        return self.kind(number)

    def rounds(self) -> list[SeasonRound]:
        known = (self.round(number) for number in range(NEWEST, NEWEST - 40, -1))
        return [found for found in known if found.opens <= self.clock and found.number not in self.cancelled]

    def current_round(self) -> SeasonRound:
        return self.rounds()[0]

    def is_served(self, round_number: int) -> bool:
        return self.sends_newest or super().is_served(round_number)

    def file(self, name: str, round_number: int, report: Callable[[str], Any] = lambda _: None) -> Path:
        return super().file(name, self._served_as(name, round_number), report)

    def published(self, name: str, round_number: int) -> datetime:
        return super().published(name, self._served_as(name, round_number))

    def _served_as(self, name: str, round_number: int) -> int:
        if not name.endswith("live.parquet"):
            return round_number
        number = self.current_round().number if self.sends_newest else round_number
        return number - 1 if number in self.lagging else number


class TimeMachine:
    """Moves the clock of a season while code sleeps, and runs scheduled events when their time has come.

    Attributes
    ----------
    sleeps : list of float
        Seconds of each sleep.
    """

    def __init__(self, season: ClockedSeason) -> None:
        self._season = season
        self._events: list[tuple[datetime, Callable[[], Any]]] = []
        self.sleeps: list[float] = []

    def at(self, moment: datetime, event: Callable[[], Any]) -> None:
        """Schedule an event; one of the past or present happens with the next sleep."""
        self._events.append((moment, event))

    def outage(self, faults: FaultQueue, fault: Fault, start: datetime, minutes: float) -> None:
        """Schedule an outage: the fault applies to every request between two moments.

        Parameters
        ----------
        faults : FaultQueue
            That of the server.
        fault : Fault
            Its count is replaced.
        start : datetime
            The outage begins at once when this is the present or past.
        minutes : float
            Duration.
        """
        lasting = fault.model_copy(update={"count": 10**9})
        if start <= self._season.clock:
            faults.add(lasting)
        else:
            self.at(start, lambda: faults.add(lasting))
        self.at(start + timedelta(minutes=minutes), lambda: faults.remove(lasting))

    def now(self) -> datetime:
        """Read the season's clock."""
        return self._season.clock

    def pass_time(self, seconds: float) -> None:
        """Move the clock on, and run the events that are due, in the order of their moments."""
        end = self._season.clock + timedelta(seconds=seconds)
        due = sorted((entry for entry in self._events if entry[0] <= end), key=lambda entry: entry[0])
        self._events = [entry for entry in self._events if entry[0] > end]
        for moment, event in due:
            self._season.clock = max(self._season.clock, moment)
            event()
        self._season.clock = end

    def block(self, seconds: float) -> None:
        """Sleep in code that is not asynchronous: a replacement of ``time.sleep``."""
        self.sleeps.append(seconds)
        self.pass_time(seconds)

    async def sleep(self, seconds: float) -> None:
        """Sleep in asynchronous code: a replacement of ``asyncio.sleep``."""
        assert seconds >= 1, "there must be a pause between two requests"
        self.sleeps.append(seconds)
        self.pass_time(seconds)
        await asyncio.sleep(0)
