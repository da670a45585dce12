"""Fixtures of the simulator's tests: a season, its server, and numerapi as the client."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numerapi
import pytest
from numerapi import base_api

from practice.server import PracticeServer, running
from tests.unit.practice.simulator import ACCOUNT, SIZE, MovingSeason, make_client


@pytest.fixture
def season(tmp_path: Path) -> MovingSeason:
    return MovingSeason(tmp_path / "season", SIZE)


@pytest.fixture
def server(season: MovingSeason, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    with running(season, [ACCOUNT]) as server:
        monkeypatch.setattr(base_api, "API_TOURNAMENT_URL", server.address)
        yield server


@pytest.fixture
def api(server: PracticeServer) -> numerapi.NumerAPI:
    return make_client()
