"""The protocol of the simulator, queried with the released numerapi."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numerapi
import pandas as pd  # type: ignore[import-untyped]
import pytest
import requests
from numerapi import base_api

from practice.model import SeasonSize
from practice.rounds import SeasonRound, round_open_at
from practice.season import FILES, Season
from practice.server import PracticeServer, running

SMALL = SeasonSize(rows_per_era=40, train_eras=3, validation_eras=15, small=4, medium=6, all_features=8)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[PracticeServer]:
    with running(Season(tmp_path / "season", SMALL)) as server:
        yield server


@pytest.fixture
def api(server: PracticeServer, monkeypatch: pytest.MonkeyPatch) -> numerapi.NumerAPI:
    monkeypatch.setattr(base_api, "API_TOURNAMENT_URL", server.address)
    client: Any = numerapi.NumerAPI  # its constructor is not annotated
    api: numerapi.NumerAPI = client("public", "secret", show_progress_bars=False)
    return api


def test_list_datasets_names_the_files_of_the_round(api: numerapi.NumerAPI) -> None:
    assert api.list_datasets() == [f"v5.3/{name}" for name in FILES]


@pytest.mark.parametrize("name", ["v5.3/live.parquet", "v5.3/features.json", "v5.3/live_example_preds.csv"])
def test_download_gives_the_bytes_of_the_file(
    api: numerapi.NumerAPI, server: PracticeServer, tmp_path: Path, name: str
) -> None:
    path = api.download_dataset(name, str(tmp_path / "file"))
    current = server.season.current_round().number
    assert (tmp_path / "file").read_bytes() == server.season.file(name, current).read_bytes()
    assert path == str(tmp_path / "file")


def test_download_with_filters_gives_the_matching_rows(api: numerapi.NumerAPI, tmp_path: Path) -> None:
    eras = pd.read_parquet(api.download_dataset("v5.3/train.parquet", str(tmp_path / "all.parquet"))).era.unique()
    some = api.download_dataset("v5.3/train.parquet", str(tmp_path / "some"), filters=[("era", "in", [eras[1]])])
    assert list(pd.read_parquet(some).era.unique()) == [eras[1]]


def test_current_round_of_the_default_calendar_is_open(api: numerapi.NumerAPI) -> None:
    assert api.get_current_round() == round_open_at(datetime.now(UTC)).number
    assert api.check_round_open() is True
    assert api.check_new_round(hours=24 * 4) is True


def test_list_rounds_gives_times_and_payouts(api: numerapi.NumerAPI) -> None:
    current = round_open_at(datetime.now(UTC))
    rounds = api.list_rounds(limit=8)
    assert [found["number"] for found in rounds] == list(range(current.number, current.number - 8, -1))
    assert rounds[0]["openTime"].astimezone(UTC) == current.opens
    assert rounds[0]["closeTime"].astimezone(UTC) == current.closes
    paid = {config["displayName"]: config["defaultMultiplier"] for config in rounds[0]["roundScoreConfigs"]}
    assert paid == {"v2_corr20": 0.0, "mmc": 0.0, "corr60": 3.0, "mmc60": 15.0}
    assert [config["isPayout"] for config in rounds[0]["roundScoreConfigs"]] == [False, False, True, True]


def test_list_rounds_with_filters_gives_the_matching_rounds(api: numerapi.NumerAPI) -> None:
    current = round_open_at(datetime.now(UTC)).number
    assert [found["number"] for found in api.list_rounds(number=0)] == [current]
    assert [found["openTime"].astimezone(UTC) for found in api.list_rounds(number=1299)] == [SeasonRound(1299).opens]
    assert api.list_rounds(number=current + 1) == []
    assert [found["number"] for found in api.list_rounds(status="open")] == [current]
    assert len(api.list_rounds(status="resolving")) in range(55, 70)
    assert api.list_rounds(target="target_unknown") == []
    assert len(api.get_competitions()) == current  # type: ignore[no-untyped-call]


def test_query_of_unknown_data_gets_a_graphql_error(
    api: numerapi.NumerAPI, server: PracticeServer, tmp_path: Path
) -> None:
    current = server.season.current_round().number
    with pytest.raises(ValueError, match="not found"):
        api.download_dataset("v5.3/weather.parquet", str(tmp_path / "x"))
    with pytest.raises(ValueError, match="not available"):
        api.list_datasets(current - 100)
    with pytest.raises(ValueError, match="Cannot query field"):
        api.raw_query("{ secrets }")


def test_download_of_a_recent_round_gives_its_live_data(
    api: numerapi.NumerAPI, server: PracticeServer, tmp_path: Path
) -> None:
    current = server.season.current_round().number
    api.download_dataset("v5.3/live.parquet", str(tmp_path / "now.parquet"))
    api.download_dataset("v5.3/live.parquet", str(tmp_path / "before.parquet"), round_num=current - 1)
    now, before = (pd.read_parquet(tmp_path / f"{name}.parquet") for name in ("now", "before"))
    assert not set(now.index) & set(before.index)


def _address(server: PracticeServer, name: str = "v5.3/live.parquet") -> str:
    query = f'{{ dataset(filename: "{name}") }}'
    address: str = requests.post(server.address, json={"query": query}, timeout=5).json()["data"]["dataset"]
    return address


def test_presigned_address_is_valid_for_one_file_and_get_only(server: PracticeServer) -> None:
    address = _address(server)
    whole = requests.get(address, timeout=5)
    assert whole.status_code == 200
    assert len(whole.content) == int(whole.headers["Content-Length"])
    assert requests.head(address, timeout=5).status_code == 405
    assert requests.get(address.partition("?")[0], timeout=5).status_code == 403
    assert requests.get(address.replace("live", "train"), timeout=5).status_code == 403


def test_range_request_with_another_etag_gets_the_whole_file(server: PracticeServer) -> None:
    address = _address(server)
    whole = requests.get(address, timeout=5)
    etag = whole.headers["ETag"]
    rest = requests.get(address, headers={"Range": "bytes=100-", "If-Range": etag}, timeout=5)
    size = len(whole.content)
    assert (rest.status_code, rest.headers["Content-Range"]) == (206, f"bytes 100-{size - 1}/{size}")
    assert rest.content == whole.content[100:]
    other = requests.get(address, headers={"Range": "bytes=100-", "If-Range": '"other"'}, timeout=5)
    assert (other.status_code, other.content) == (200, whole.content)


def test_controls_queue_faults_and_list_requests(server: PracticeServer) -> None:
    faults = [{"kind": "status", "on": "graphql", "status": 429, "retry_after": 7, "count": 2}]
    assert requests.post(f"{server.address}/practice/faults", json=faults, timeout=5).json() == {"queued": 1}
    for expected in (429, 429, 200):
        answer = requests.post(server.address, json={"query": "{ listDatasets }"}, timeout=5)
        assert answer.status_code == expected
        assert answer.headers.get("Retry-After") == ("7" if expected == 429 else None)
    asked = requests.get(f"{server.address}/practice/requests", timeout=5).json()
    assert [entry["faults"] for entry in asked] == [["status"], ["status"], []]
    requests.post(f"{server.address}/practice/faults", json=faults, timeout=5)
    requests.delete(f"{server.address}/practice/faults", timeout=5)
    assert requests.post(server.address, json={"query": "{ listDatasets }"}, timeout=5).status_code == 200
    wrong = [{"kind": "truncated", "on": "graphql"}]
    assert requests.post(f"{server.address}/practice/faults", json=wrong, timeout=5).status_code == 422


def test_season_with_a_fixed_day_has_its_round(tmp_path: Path) -> None:
    season = Season(tmp_path, SMALL, today=datetime(2026, 8, 15, 13, tzinfo=UTC))
    with running(season) as server:
        answer = requests.post(server.address, json={"query": "{ rounds(number: 0) { number } }"}, timeout=5)
        assert answer.json() == {"data": {"rounds": [{"number": 1334}]}}
    assert season.now() - datetime(2026, 8, 15, 13, tzinfo=UTC) == timedelta(0)


def test_file_has_the_opening_of_its_round_as_last_modified(tmp_path: Path) -> None:
    season = Season(tmp_path, SMALL, today=datetime(2026, 8, 20, 13, tzinfo=UTC))  # Thursday: round 1337
    with running(season) as server:
        query = "query($name: String! $round: Int) { dataset(filename: $name round: $round) }"

        def modified(name: str, number: int) -> str:
            body = {"query": query, "variables": {"name": f"v5.3/{name}", "round": number}}
            address = requests.post(server.address, json=body, timeout=5).json()["data"]["dataset"]
            return requests.get(address, timeout=5).headers["Last-Modified"]

        assert modified("live.parquet", 1337) == "Thu, 20 Aug 2026 12:00:00 GMT"
        assert modified("live.parquet", 1336) == "Wed, 19 Aug 2026 12:00:00 GMT"
        assert modified("validation.parquet", 1337) == "Tue, 18 Aug 2026 12:00:00 GMT"
        assert modified("train.parquet", 1337) == "Sat, 15 Aug 2026 12:00:00 GMT"
