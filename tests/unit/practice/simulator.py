"""A simulator whose clock a test moves, and numerapi as its client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import numerapi
import pandas as pd  # type: ignore[import-untyped]

from practice.accounts import Account
from practice.model import SeasonSize
from practice.season import Season

SIZE = SeasonSize(rows_per_era=200, train_eras=3, validation_eras=15, small=4, medium=6, all_features=8)
SATURDAY = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)  # round 1334 is open
KEYS = ("PUBLIC", "s3cr3t-k3y")
ACCOUNT = Account.of(":".join(KEYS), ["alpha", "beta"])
Client = Callable[..., numerapi.NumerAPI]


class MovingSeason(Season):
    """A season whose clock a test moves."""

    clock = SATURDAY

    def now(self) -> datetime:
        return self.clock


def make_client(*keys: str) -> numerapi.NumerAPI:
    """Make a client with these keys; with those of the account when none are given."""
    kind: Any = numerapi.NumerAPI  # its constructor is not annotated
    client: numerapi.NumerAPI = kind(*(keys or KEYS), show_progress_bars=False)
    return client


def example_predictions(season: Season, round_number: int) -> pd.DataFrame:
    """Make valid predictions of a round's live rows."""
    rows = season.live_rows(round_number)
    return pd.DataFrame({"id": rows.ids.astype(str), "prediction": rows.example})


def latest_entries(api: numerapi.NumerAPI, name: str = "alpha", rounds: int = 1) -> list[tuple[int, str]]:
    """Query the entries of ``latestSubmissions`` of a model: round and status, the newest round first."""
    query = "query($rounds: Int) { account { models { name latestSubmissions(latestNRounds: $rounds)"
    query += " { roundNumber status } } } }"
    models = api.raw_query(query, {"rounds": rounds}, authorization=True)["data"]["account"]["models"]
    found = next(model for model in models if model["name"] == name)
    return [(entry["roundNumber"], entry["status"]) for entry in found["latestSubmissions"]]
