"""The tournament's API on good and bad days, by the real numerapi and over real HTTP."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

import pandas as pd  # type: ignore[import-untyped]
import pytest
from numerapi import base_api

from numerai_pipeline.core.errors import (
    CredentialsError,
    NetworkError,
    NotFoundError,
    ProtocolError,
    RoundClosedError,
)
from numerai_pipeline.core.payout import payout_days
from numerai_pipeline.dataset.file_checks import ContentError
from numerai_pipeline.numerai_api.client import ApiClient
from numerai_pipeline.numerai_api.datasets import Datasets
from numerai_pipeline.numerai_api.retries import RetryPolicy
from numerai_pipeline.numerai_api.tournament import Round, Tournament
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import Manifest, verified_manifest
from practice.faults import Fault, Kind
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running
from tests.recorded.answers import recorded
from tests.recorded.server import RecordedServer
from tests.samples import payout

pytestmark = pytest.mark.slow

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
QUICK = RetryPolicy(attempts=3, initial_delay=0.001, max_delay=0.002)
TODAY = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)  # Saturday: round 1334 is open
ALWAYS = 1000


def connect(address: str, **options: Any) -> ApiClient:
    return ApiClient(address, **{"timeout": 20, "policy": QUICK, **options})


def tournament(address: str, **options: Any) -> Tournament:
    return Tournament(connect(address, **options))


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PracticeServer]:
    season = Season(tmp_path_factory.mktemp("season"), SIZE, today=TODAY, versions=("v5.9", "v5.10", "v5.2"))
    season.prepare()
    with running(season) as server:
        yield server


@pytest.fixture
def server(shared_server: PracticeServer) -> PracticeServer:
    shared_server.faults.clear()
    shared_server.requests.clear()
    return shared_server


@pytest.fixture
def api(server: PracticeServer) -> Tournament:
    return tournament(server.address)


@pytest.fixture
def datasets(server: PracticeServer) -> Datasets:
    client = connect(server.address)
    return Datasets(client, Tournament(client))


def fault(kind: Kind, **options: Any) -> Fault:
    return Fault(kind=kind, on="graphql", **options)


def known(found: Round | None) -> Round:
    assert found is not None
    return found


def verified(path: Path) -> Manifest:
    manifest = verified_manifest(path)
    assert manifest is not None
    return manifest


def test_list_datasets_and_latest_version_follow_the_server(datasets: Datasets) -> None:
    assert "v5.10/live.parquet" in datasets.list_datasets()
    assert datasets.latest_version() == "v5.10"


def test_latest_version_incomplete_version_is_ignored(
    server: PracticeServer, datasets: Datasets, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [*server.season.names(), "v5.11/features.json", "v6/live.parquet", "readme.txt"]
    monkeypatch.setattr(server.season, "names", lambda: names)
    assert datasets.latest_version() == "v5.10"
    monkeypatch.setattr(server.season, "names", lambda: ["v6/live.parquet"])
    with pytest.raises(ProtocolError, match=r"train\.parquet.*listed: v6/live\.parquet"):
        datasets.latest_version()


def test_current_round_has_number_and_times(api: Tournament) -> None:
    current = known(api.current_round())
    assert (current.number, current.open_time, current.close_time) == (
        1334,
        datetime(2026, 8, 15, 12, tzinfo=UTC),
        datetime(2026, 8, 18, 12, tzinfo=UTC),
    )
    assert str(current) == "round 1334 (Sat 2026-08-15 12:00 to Tue 2026-08-18 12:00 UTC)"


def test_current_round_between_rounds_is_none(server: PracticeServer, api: Tournament) -> None:
    server.faults.add(fault("graphql_error", message="Current round not open for submissions"))
    assert api.current_round() is None


def test_round_by_number_unknown_number_names_the_current_one(api: Tournament) -> None:
    assert api.round_by_number(1299).open_time == SeasonRound(1299).opens
    with pytest.raises(NotFoundError, match="round 9999 does not exist; the current one is round 1334"):
        api.round_by_number(9999)


def test_round_at_moment_returns_the_latest_opened_round(api: Tournament) -> None:
    assert known(api.round_at(TODAY)).number == 1334
    assert known(api.round_at(datetime(2026, 8, 15, 11, 59, tzinfo=UTC))).number == 1333
    assert known(api.round_at(datetime(2026, 8, 9, tzinfo=UTC))).number == 1329
    assert api.round_at(datetime(2030, 1, 1, tzinfo=UTC)) is None
    with pytest.raises(ValueError, match="time zone"):
        api.round_at(datetime(2026, 8, 15))  # noqa: DTZ001


class NumeraiHours(SeasonRound):
    """A round with Numerai's own hours: it opens a little late, weekdays are short."""

    @property
    def opens(self) -> datetime:
        return super().opens + timedelta(hours=1, minutes=12)

    @property
    def closes(self) -> datetime:
        return self.opens + timedelta(hours=48 if self.weekday == 4 else self.hours)

    hours = 1


class LongHours(NumeraiHours):
    """As above, but weekday rounds stay open for a day and more."""

    hours = 25


@pytest.mark.parametrize("kind", [NumeraiHours, LongHours])
def test_round_at_before_a_late_opening_returns_the_round_of_the_day(
    server: PracticeServer, api: Tournament, monkeypatch: pytest.MonkeyPatch, kind: type[SeasonRound]
) -> None:
    numbers = range(1319, 1335)
    monkeypatch.setattr(server.season, "rounds", lambda: [kind(number) for number in numbers])
    schedule = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)  # the round opens at 13:12
    assert known(api.round_at(schedule)).number == 1334
    assert known(api.round_at(schedule + timedelta(minutes=30))).number == 1334
    assert known(api.round_at(schedule + timedelta(hours=24))).number == 1334
    assert known(api.round_at(datetime(2026, 8, 11, 13, 0, tzinfo=UTC))).number == 1330
    # Monday night: no round
    assert api.round_at(datetime(2026, 8, 17, 20, tzinfo=UTC)) is None
    # its own round is not announced yet: it is never another day's
    if kind is NumeraiHours:
        numbers = range(1319, 1334)
        assert api.round_at(schedule) is None


# what goes wrong → the error it ends in, or None when the answer comes all the same
TABLE: dict[str, tuple[list[Fault], type[Exception] | None]] = {
    "401": ([fault("status", status=401)], CredentialsError),
    "403 for ever": ([fault("status", status=403, count=ALWAYS)], NetworkError),
    "404": ([fault("status", status=404)], NotFoundError),
    "400 for ever": ([fault("status", status=400, count=ALWAYS)], ProtocolError),
    "429 once": ([fault("status", status=429, retry_after=0)], None),
    "429 for ever": ([fault("status", status=429, count=ALWAYS)], NetworkError),
    "503 twice": ([fault("status", status=503, count=2)], None),
    "503 for ever": ([fault("status", status=503, count=ALWAYS)], NetworkError),
    "HTML once": ([fault("html")], None),
    "HTML for ever": ([fault("html", count=ALWAYS)], NetworkError),
    "refused once": ([fault("graphql_error", message="Internal error")], None),
    "refused for ever": ([fault("graphql_error", message="Internal error", count=ALWAYS)], ProtocolError),
    "not there": ([fault("graphql_error", message="Dataset not found")], NotFoundError),
    "bad keys": ([fault("graphql_error", message="You need to be authenticated to do this")], CredentialsError),
}


@pytest.mark.parametrize(("faults", "error"), TABLE.values(), ids=TABLE.keys())
def test_round_by_number_each_fault_gives_the_answer_or_its_error(
    server: PracticeServer, api: Tournament, faults: list[Fault], error: type[Exception] | None
) -> None:
    server.faults.add(*faults)
    began = time.monotonic()
    if error is None:
        assert api.round_by_number(1334).number == 1334
    else:
        with pytest.raises(error, match=server.address):
            api.round_by_number(1334)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(("count", "error"), [(1, None), (ALWAYS, NetworkError)], ids=["once", "for ever"])
def test_round_by_number_late_reply_is_requested_again(
    server: PracticeServer, count: int, error: type[Exception] | None
) -> None:
    server.faults.add(fault("delay", seconds=0.8 if error else 8, count=count))
    if error is None:
        # a request without a delay has all the time that a busy machine may need
        assert tournament(server.address, timeout=4).round_by_number(1334).number == 1334
    else:
        with pytest.raises(error, match=server.address):
            tournament(server.address, timeout=0.3).round_by_number(1334)


def test_current_round_connection_refused_raises_network_error() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with pytest.raises(NetworkError, match=f"{address}: .*refused"):
        tournament(address).current_round()


class Answers(Protocol):
    def __call__(self, content: bytes, *, drip: bool = False) -> str: ...


@pytest.fixture
def answers() -> Iterator[Answers]:
    """Start a server that sends these bytes and then one more every 50 ms."""
    sockets: list[socket.socket] = []

    def start(content: bytes, *, drip: bool = False) -> str:
        listening = socket.create_server(("127.0.0.1", 0))
        sockets.append(listening)

        def serve() -> None:
            while True:
                try:
                    client, _ = listening.accept()
                except OSError:
                    return
                with client:
                    try:
                        client.recv(65536)
                        client.sendall(content)
                        while drip:
                            time.sleep(0.05)
                            client.sendall(b" ")
                    except OSError:
                        pass

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listening.getsockname()[1]}"

    yield start
    for listening in sockets:
        listening.close()


def test_current_round_slow_reply_ends_at_the_time_limit(answers: Answers) -> None:
    address = answers(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n{", drip=True)
    began = time.monotonic()
    with pytest.raises(NetworkError, match=r"not complete within 0\.3 s"):
        tournament(address, timeout=0.3, policy=RetryPolicy(attempts=1)).current_round()
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b'{"data": null}', ProtocolError),
        (b'{"data": {}}', ProtocolError),
        (b'{"data": {"rounds": [{"number": "x", "openTime": "soon", "closeTime": "later"}]}}', ProtocolError),
        (b"[1, 2]", ProtocolError),
        (b'{"errors": {"detail": "API key is invalid"}}', CredentialsError),
        (b'{"errors": ["odd"]}', ProtocolError),
        (b"{", NetworkError),
    ],
)
def test_current_round_reply_of_another_protocol_raises(answers: Answers, body: bytes, error: type[Exception]) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    address = answers(head.encode() + body)
    with pytest.raises(error, match=address):
        tournament(address).current_round()


def test_client_keys_are_sent_only_where_required_and_not_logged(server: PracticeServer) -> None:
    client = connect(server.address, keys=("public", "s3cr3t"))
    client.numerapi.list_datasets()
    client.query("{ listDatasets }", with_keys=True)
    assert [entry["has_keys"] for entry in server.requests.entries(on="graphql")] == [False, True]
    server.faults.add(fault("status", status=401))
    with pytest.raises(CredentialsError, match="NUMERAI_PUBLIC_ID") as raised:
        client.query("{ listDatasets }", with_keys=True)
    assert "s3cr3t" not in str(raised.value)
    with pytest.raises(CredentialsError, match="set NUMERAI_PUBLIC_ID"):
        connect(server.address).query("{ listDatasets }", with_keys=True)


def test_connect_dotenv_file_is_ignored(
    server: PracticeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".env").write_text("NUMERAI_PUBLIC_ID=from-dotenv\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NUMERAI_PUBLIC_ID", raising=False)
    assert connect(server.address).numerapi.token is None
    import os

    assert "NUMERAI_PUBLIC_ID" not in os.environ


def test_tournament_two_servers_in_one_process_are_separate(server: PracticeServer, tmp_path: Path) -> None:
    before = base_api.API_TOURNAMENT_URL
    season = Season(tmp_path, SIZE, today=TODAY + timedelta(days=7))
    with running(season) as other:
        ours, theirs = tournament(server.address), tournament(other.address)
        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda index: known((ours, theirs)[index % 2].current_round()).number, range(40)))
    assert numbers == [1334, 1339] * 20
    assert before == base_api.API_TOURNAMENT_URL


# rounds


def test_download_round_has_every_file_of_a_run(server: PracticeServer, datasets: Datasets, tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    raw = datasets.download_round(layout, source="practice")
    assert (raw.kind, raw.source, raw.round, raw.version) == ("v5", "practice", "1334", "v5.10")
    folder = layout.downloads("practice/v5.10")
    assert {role: raw.path(role) for role in raw.files} == {
        "features": folder / "features.json",
        "train": folder / "train.parquet",
        "validation": folder / "validation.parquet",
        "live": folder / "round-1334" / "live.parquet",
        "example_validation": folder / "validation_example_preds.parquet",
        "meta_model": folder / "meta_model.parquet",
        "benchmark_validation": folder / "validation_benchmark_models.parquet",
    }
    for role, file in raw.files.items():
        name = f"v5.10/{raw.path(role).name}"
        assert raw.path(role).read_bytes() == server.season.file(name, 1334).read_bytes()
        assert file.sha256 == verified(raw.path(role)).sha256
    assert verified(raw.path("live")).rows == 50
    server.requests.clear()
    assert datasets.download_round(layout, source="practice", run_date=TODAY) == raw
    assert len(server.requests.entries(on="file")) == 7  # each only asked for its ETag


def test_download_round_that_needs_live_only_downloads_nothing_else(
    server: PracticeServer, datasets: Datasets, tmp_path: Path
) -> None:
    layout = DataLayout(tmp_path)
    raw = datasets.download_round(layout, source="practice", needs_live_only=lambda asked: asked.number == 1334)
    live = layout.downloads("practice/v5.10") / "round-1334" / "live.parquet"
    assert {role: raw.path(role) for role in raw.files} == {"live": live}
    assert (raw.era, raw.payout, raw.unavailable) == (None, payout(20), {})
    assert raw.closes == SeasonRound(1334).closes.isoformat()
    assert list(tmp_path.rglob("*.parquet")) == [live]
    assert len(server.requests.entries(on="file")) == 1


def test_download_round_that_is_closed_needs_more_than_live(datasets: Datasets, tmp_path: Path) -> None:
    raw = datasets.download_round(
        DataLayout(tmp_path),
        source="practice",
        round_number=1299,
        needs_live_only=lambda _round: True,
        walk_forward=True,
    )
    assert raw.era is not None
    assert {"train", "validation"} <= set(raw.files)


def test_download_round_several_faults_are_retried(server: PracticeServer, datasets: Datasets, tmp_path: Path) -> None:
    server.faults.add(
        fault("status", status=503, count=2, match="dataset("),
        Fault(kind="truncated", on="file", match="train"),
        Fault(kind="status", on="file", match="validation", status=403),
        Fault(kind="html", on="file", match="live"),
    )
    raw = datasets.download_round(DataLayout(tmp_path), source="practice")
    for role in raw.files:
        name = f"v5.10/{raw.path(role).name}"
        assert raw.path(role).read_bytes() == server.season.file(name, 1334).read_bytes()


def test_download_round_requested_version_is_used_or_rejected(datasets: Datasets, tmp_path: Path) -> None:
    raw = datasets.download_round(DataLayout(tmp_path), source="practice", version="v5.2")
    assert raw.version == "v5.2"
    with pytest.raises(NotFoundError, match=r"v4\.1 does not have .*listed versions: v5\.10, v5\.9, v5\.2"):
        datasets.download_round(DataLayout(tmp_path), source="practice", version="v4.1")


@pytest.mark.parametrize(
    "choice", [{"round_number": 1332}, {"run_date": datetime(2026, 8, 13, 12, 30, tzinfo=UTC)}], ids=["number", "date"]
)
def test_download_round_recent_round_has_its_own_live_data(
    server: PracticeServer, datasets: Datasets, tmp_path: Path, choice: dict[str, Any]
) -> None:
    raw = datasets.download_round(DataLayout(tmp_path), source="practice", **choice)
    assert raw.round == "1332"
    assert raw.path("live").parent.name == "round-1332"
    assert raw.path("live").read_bytes() == server.season.file("v5.10/live.parquet", 1332).read_bytes()
    assert raw.path("live").read_bytes() != server.season.file("v5.10/live.parquet", 1334).read_bytes()


@pytest.mark.parametrize(
    "choice", [{"round_number": 1299}, {"run_date": datetime(2026, 6, 27, 13, tzinfo=UTC)}], ids=["number", "date"]
)
def test_download_round_no_longer_served_raises_round_closed(
    datasets: Datasets, tmp_path: Path, choice: dict[str, Any]
) -> None:
    with pytest.raises(RoundClosedError, match=r"round 1299 .*served are: 1334, 1333, 1332, 1331, 1330$"):
        datasets.download_round(DataLayout(tmp_path), source="practice", **choice)
    assert not list(tmp_path.rglob("*"))


@pytest.mark.parametrize(
    "choice", [{"round_number": 1299}, {"run_date": datetime(2026, 6, 27, 13, tzinfo=UTC)}], ids=["number", "date"]
)
def test_download_round_walk_forward_to_a_closed_round_has_its_era(
    server: PracticeServer, datasets: Datasets, tmp_path: Path, choice: dict[str, Any]
) -> None:
    raw = datasets.download_round(DataLayout(tmp_path), source="practice", walk_forward=True, **choice)
    assert (raw.round, raw.era, raw.payout) == ("1299", SeasonRound(1299).era, payout(20))
    benchmarks = {"example_validation", "meta_model", "benchmark_validation"}
    assert set(raw.files) == {"features", "train", "validation", *benchmarks}
    for role in raw.files:
        name = f"v5.10/{raw.path(role).name}"
        assert raw.path(role).read_bytes() == server.season.file(name, 1334).read_bytes()
    server.requests.clear()
    # another week: the same files, which are only asked for their ETags
    other = datasets.download_round(DataLayout(tmp_path), source="practice", walk_forward=True, round_number=1295)
    assert (other.era, other.files) == (SeasonRound(1295).era, raw.files)
    assert len(server.requests.entries(on="file")) == 6


def test_download_round_walk_forward_to_a_served_round_has_no_era(datasets: Datasets, tmp_path: Path) -> None:
    for number in (1334, 1332):
        raw = datasets.download_round(DataLayout(tmp_path), source="practice", walk_forward=True, round_number=number)
        assert raw.era is None
        assert raw.path("live").parent.name == f"round-{number}"


def test_download_round_walk_forward_to_an_unopened_round_raises(
    server: PracticeServer, datasets: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = [SeasonRound(1335), *server.season.rounds()]
    monkeypatch.setattr(server.season, "rounds", lambda: rounds)
    with pytest.raises(RoundClosedError, match=r"round 1335 .*has not opened yet"):
        datasets.download_round(DataLayout(tmp_path), source="practice", walk_forward=True, round_number=1335)


def test_payout_without_a_usable_answer_is_empty(server: PracticeServer, api: Tournament) -> None:
    assert api.payout(1334) == payout(20)
    # a server without an answer, or with another one, stops no run
    server.faults.add(fault("graphql_error", message="Cannot query field 'roundScoreConfigs'", count=ALWAYS))
    assert api.payout(1334) == ()


@pytest.mark.parametrize(("period", "days"), [("to_2025", 20), ("2026", 20), ("from_1343", 60)])
def test_payout_as_recorded_has_names_days_and_multipliers(period: str, days: int) -> None:
    with RecordedServer().running() as recorded_server:
        recorded_server.give("rounds", recorded(f"round_score_configs_{period}"))
        found = tournament(recorded_server.address).payout(1343)
    multipliers = (0.5, 2.0) if period == "to_2025" else tuple(score.multiplier for score in payout(days))
    expected = [replace(score, multiplier=by) for score, by in zip(payout(days), multipliers, strict=True)]
    assert list(found) == expected
    assert payout_days(found) == days


@pytest.mark.parametrize("field", ["displayName", "totalScoreDays", "defaultMultiplier"])
def test_payout_with_a_missing_field_is_empty(field: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = recorded("round_score_configs_from_1343")
    for score in answer.data["rounds"][0]["roundScoreConfigs"]:
        del score[field]
    with RecordedServer().running() as recorded_server:
        recorded_server.give("rounds", answer)
        assert tournament(recorded_server.address).payout(1343) == ()
    assert f"the payout of round 1343 is unknown: '{field}'" in caplog.text


def test_download_round_date_without_round_raises_not_found(datasets: Datasets, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no round was open at the run's date 2030-01-01"):
        datasets.download_round(DataLayout(tmp_path), source="practice", run_date=datetime(2030, 1, 1, tzinfo=UTC))


def test_download_round_between_rounds_raises_round_closed(
    server: PracticeServer, datasets: Datasets, tmp_path: Path
) -> None:
    server.faults.add(fault("graphql_error", message="Current round not open for submissions", match="rounds"))
    with pytest.raises(RoundClosedError, match="no round is open at present"):
        datasets.download_round(DataLayout(tmp_path), source="practice")


def test_download_round_live_data_of_another_round_is_rejected(
    server: PracticeServer, datasets: Datasets, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = server.season.file
    monkeypatch.setattr(server.season, "is_served", lambda _number: True)
    monkeypatch.setattr(server.season, "file", lambda name, _number: right(name, 1334))
    for number in (1333, 1299):
        with pytest.raises(
            RoundClosedError, match=rf"round {number} .*for it, the server sends the file of round 1334"
        ):
            datasets.download_round(DataLayout(tmp_path), source="practice", round_number=number)


@pytest.mark.parametrize(
    ("name", "number", "reason"),
    [
        ("validation.parquet", 1334, "not live data of one era"),
        ("live.parquet", 1309, "live data of another round: its era"),
        ("live_example_preds.parquet", 1334, "column data_type, era is missing"),
    ],
)
def test_download_round_live_file_with_other_content_is_rejected(
    server: PracticeServer,
    datasets: Datasets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    number: int,
    reason: str,
) -> None:
    right = server.season.file

    def swapped(asked: str, asked_number: int) -> Path:
        return right(name, number) if asked.endswith("/live.parquet") else right(asked, asked_number)

    monkeypatch.setattr(server.season, "file", swapped)
    with pytest.raises(ContentError, match=f"v5.10/live.parquet: the downloaded file is .*{reason}"):
        datasets.download_round(DataLayout(tmp_path), source="practice")
    assert not list(tmp_path.rglob("live.parquet"))


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda table: pd.concat([table, table.iloc[:1]]), "ids occur more than once"),
        (lambda table: table.assign(data_type="validation"), "data types .'validation'."),
        (lambda table: table.iloc[:0], "0 rows"),
    ],
    ids=["an id twice", "not live", "empty"],
)
def test_download_round_invalid_live_rows_are_rejected(
    server: PracticeServer,
    datasets: Datasets,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[pd.DataFrame], pd.DataFrame],
    reason: str,
) -> None:
    right = server.season.file
    spoil(pd.read_parquet(right("live.parquet", 1334))).to_parquet(tmp_path / "spoilt.parquet")

    def swapped(asked: str, number: int) -> Path:
        return tmp_path / "spoilt.parquet" if asked.endswith("/live.parquet") else right(asked, number)

    monkeypatch.setattr(server.season, "file", swapped)
    with pytest.raises(ContentError, match=reason):
        datasets.download_round(DataLayout(tmp_path / "data"), source="practice")


def test_download_single_file_is_saved_or_not_found(server: PracticeServer, datasets: Datasets, tmp_path: Path) -> None:
    raw = datasets.download("v5.10/live_example_preds.csv", tmp_path / "example.csv")
    assert Path(raw.path).read_text().startswith("id,prediction\n")
    with pytest.raises(NotFoundError, match=r"v5\.10/weather\.csv not found"):
        datasets.download("v5.10/weather.csv", tmp_path / "weather.csv")


# files to compare with

OPTIONAL_FAULTS = {
    "403": Fault(kind="status", on="file", match="meta_model", status=403, count=ALWAYS),
    "404": Fault(kind="status", on="file", match="meta_model", status=404, count=ALWAYS),
    "503": Fault(kind="status", on="file", match="meta_model", status=503, count=ALWAYS),
    "HTML": Fault(kind="html", on="file", match="meta_model", count=ALWAYS),
    "truncated": Fault(kind="truncated", on="file", match="meta_model", keep=0, count=ALWAYS),
    "damaged": Fault(kind="changed", on="file", match="meta_model", count=ALWAYS),
}


@pytest.mark.parametrize("fault", OPTIONAL_FAULTS.values(), ids=OPTIONAL_FAULTS.keys())
def test_download_round_without_a_comparison_file_warns(
    server: PracticeServer, datasets: Datasets, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: Fault
) -> None:
    server.faults.add(fault)
    raw = datasets.download_round(DataLayout(tmp_path), source="practice")
    assert "meta_model" not in raw.files
    assert {"features", "train", "validation", "live", "example_validation"} <= set(raw.files)
    assert list(raw.unavailable) == ["meta_model"]
    assert "meta_model.parquet" in raw.unavailable["meta_model"]
    assert "the run continues without it" in caplog.text
    assert "signature=" not in raw.unavailable["meta_model"]


def test_download_round_waits_for_no_comparison_file(
    server: PracticeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.faults.add(Fault(kind="status", on="file", match="meta_model", status=403, count=ALWAYS))
    client = connect(server.address)
    # the round stays open for as long as the test runs
    policy = RetryPolicy(attempts=3, initial_delay=0.001, max_delay=0.002, clock=lambda: TODAY)
    api = Datasets(client.with_policy(policy), Tournament(client))
    assert list(api.download_round(DataLayout(tmp_path), source="practice").unavailable) == ["meta_model"]


def test_download_round_retries_a_listed_file_until_the_close(server: PracticeServer, tmp_path: Path) -> None:
    server.faults.add(
        Fault(kind="status", on="file", match="v5.10/train.parquet", status=404, count=20),
        fault("status", match="dataset(", count=20),
    )
    client = connect(server.address)
    policy = RetryPolicy(attempts=2, initial_delay=0.001, max_delay=0.002, clock=lambda: TODAY)
    raw = Datasets(client.with_policy(policy), Tournament(client)).download_round(
        DataLayout(tmp_path), source="practice"
    )
    assert raw.closes == SeasonRound(1334).closes.isoformat()
    assert verified(raw.path("train")).rows


def test_download_round_gives_up_after_the_close(server: PracticeServer, tmp_path: Path) -> None:
    server.faults.add(Fault(kind="status", on="file", match="v5.10/train.parquet", status=404, count=ALWAYS))
    with pytest.raises(NetworkError, match=r"train.parquet .*answered 404 .*the server lists this file"):
        Datasets(connect(server.address), tournament(server.address)).download_round(
            DataLayout(tmp_path), source="practice"
        )
