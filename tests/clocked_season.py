"""A practice season that keeps Numerai's own hours, on a clock that a test moves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
NEWEST = 1339


class NumeraisRound(SeasonRound):
    """Opens at 13:12; a weekday's stays open for an hour, Saturday's for two days."""

    late: dict[int, timedelta] = {}  # noqa: RUF012 - a test's own

    @property
    def opens(self) -> datetime:
        return super().opens + timedelta(hours=1, minutes=12) + self.late.get(self.number, timedelta(0))

    @property
    def closes(self) -> datetime:
        return self.opens + timedelta(hours=48 if self.weekday == 4 else 1)


class ClockedSeason(Season):
    """A season at Numerai's hours.

    Attributes
    ----------
    clock : datetime
        The present.
    kind : type
        What its rounds are.
    cancelled : set of int
        Rounds that never open.
    lagging : set of int
        Rounds for which the live data of the round before is still served.
    sends_newest : bool
        Whether the newest live data is served whatever round is asked for.
    """

    def __init__(self, directory: Path, clock: datetime) -> None:
        self.clock = clock
        self.kind: type[SeasonRound] = NumeraisRound
        self.cancelled: set[int] = set()
        self.lagging: set[int] = set()
        self.sends_newest = False
        super().__init__(directory, SIZE)

    def now(self) -> datetime:
        return self.clock

    def rounds(self) -> list[SeasonRound]:
        everything = (self.kind(number) for number in range(NEWEST, NEWEST - 40, -1))
        return [found for found in everything if found.opens <= self.clock and found.number not in self.cancelled]

    def current_round(self) -> SeasonRound:
        return self.rounds()[0]

    def is_served(self, round_number: int) -> bool:
        return self.sends_newest or super().is_served(round_number)

    def file(self, name: str, round_number: int) -> Path:
        return super().file(name, self._really(name, round_number))

    def published(self, name: str, round_number: int) -> datetime:
        return super().published(name, self._really(name, round_number))

    def _really(self, name: str, round_number: int) -> int:
        if not name.endswith("live.parquet"):
            return round_number
        number = self.current_round().number if self.sends_newest else round_number
        return number - 1 if number in self.lagging else number


class TimeMachine:
    """Time that passes only when somebody sleeps; things happen on the way when it is their time.

    Attributes
    ----------
    sleeps : list of float
        Seconds of each sleep.
    """

    def __init__(self, season: ClockedSeason) -> None:
        self._season = season
        self._coming: list[tuple[datetime, Callable[[], Any]]] = []
        self.sleeps: list[float] = []

    def at(self, moment: datetime, happens: Callable[[], Any]) -> None:
        self._coming.append((moment, happens))

    def now(self) -> datetime:
        return self._season.clock

    async def sleep(self, seconds: float) -> None:
        assert seconds >= 1, "it must not ask without a pause"
        self.sleeps.append(seconds)
        self._season.clock += timedelta(seconds=seconds)
        due = [happens for moment, happens in self._coming if moment <= self._season.clock]
        self._coming = [entry for entry in self._coming if entry[0] > self._season.clock]
        for happens in due:
            happens()
        await asyncio.sleep(0)
