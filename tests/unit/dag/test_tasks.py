"""The round that a run downloads, by its type, its date and its parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowSkipException

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.dag import tasks
from numerai_pipeline.numerai_api.retries import RetryPolicy
from numerai_pipeline.storage.run_directory import RunDirectory
from numerai_pipeline.storage.run_metadata import RunMetadata
from practice.faults import Fault
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running
from tests.samples import payout
from tests.unit.dataset.raw_files import classic_dataset

SIZE = SeasonSize(rows_per_era=50, train_eras=4, validation_eras=15, small=4, medium=6, all_features=8)
TODAY = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)  # Saturday: round 1334 is open
LONG_AGO = datetime(2026, 6, 27, 12, 0, tzinfo=UTC)  # the Saturday of round 1299
Download = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PracticeServer]:
    with running(Season(tmp_path_factory.mktemp("season"), SIZE, today=TODAY)) as server:
        yield server


@pytest.fixture
def download(season: PracticeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Download]:
    """Call the task `download` for a run of some type and date."""
    monkeypatch.setenv("NUMERAI_API_URL", season.address)
    monkeypatch.setenv("NUMERAI_PRACTICE_URL", season.address)
    load_settings.cache_clear()

    def attempt(
        run_type: str = "manual",
        date: datetime | None = None,
        waited_for: int | None = None,
        closes: datetime | None = None,
        run_id: str = "a-run",
        **choices: Any,
    ) -> dict[str, Any]:
        dag_run: Any = SimpleNamespace(
            dag_id="numerai_tournament", run_id=run_id, run_type=run_type, logical_date=None, data_interval_end=date
        )
        waited = {"round": waited_for, "closes": closes and closes.isoformat()} if waited_for else None
        ti: Any = SimpleNamespace(xcom_pull=lambda **_: waited)
        return tasks.download({"source": "practice", **choices}, dag_run, ti)

    yield attempt
    season.faults.clear()


def test_download_manual_run_gets_the_current_round(download: Download) -> None:
    assert (download()["round"], download()["era"]) == ("1334", None)


def test_download_backfill_of_closed_round_walks_forward(download: Download) -> None:
    assert (download("backfill", TODAY)["round"], download("backfill", TODAY)["era"]) == ("1334", None)
    past = download("backfill", LONG_AGO)
    assert (past["round"], past["era"]) == ("1299", SeasonRound(1299).era)
    assert "live" not in past["files"]


def test_download_scheduled_run_of_closed_round_fails(download: Download) -> None:
    with pytest.raises(AirflowFailException, match=r"round 1299 .*is no longer served"):
        download("scheduled", LONG_AGO)


def test_download_scheduled_run_gets_the_round_of_the_sensor(download: Download) -> None:
    assert download("scheduled", TODAY, waited_for=1333)["round"] == "1333"


@pytest.mark.parametrize("hours", [1, -1])
def test_download_repeats_failed_requests_until_the_close(
    season: PracticeServer, download: Download, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    monkeypatch.setattr(RetryPolicy, "delay", lambda *_: 0.001)
    season.faults.add(Fault(kind="status", on="graphql", match="rounds(", count=2 * RetryPolicy.attempts))
    closes = datetime.now(UTC) + timedelta(hours=hours)
    if hours > 0:
        assert download("scheduled", TODAY, waited_for=1334, closes=closes)["round"] == "1334"
    else:
        with pytest.raises(AirflowException, match="answered 503"):
            download("scheduled", TODAY, waited_for=1334, closes=closes)


def test_download_closed_round_without_walk_forward_fails(download: Download) -> None:
    with pytest.raises(AirflowFailException, match="is no longer served"):
        download("backfill", LONG_AGO, walk_forward=False)
    with pytest.raises(AirflowFailException, match="is no longer served"):
        download(round=1299, walk_forward=False)


class OnFriday(datetime):
    """The clock on the Friday of round 1333, while it is open."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # not of this class
        return (TODAY - timedelta(days=1)).astimezone(tz)


class InNovember(datetime):
    """The clock when all of these rounds have closed."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]  # not of this class
        return (TODAY + timedelta(days=90)).astimezone(tz)


def unzip(
    raw: dict[str, Any], run_id: str, *, dag: str = "numerai_tournament", **choices: Any
) -> tuple[dict[str, Any], RunMetadata]:
    """Call the task `unzip`; return its return value and the run's metadata."""
    ti: Any = SimpleNamespace(dag_id=dag, run_id=run_id, xcom_pull=lambda **_: raw)
    result = tasks.unzip({"source": "practice", **choices}, ti, {})
    return result, RunMetadata.read(RunDirectory.from_xcom(result).layout(load_settings().data_dir))


def test_cleared_scheduled_run_of_a_closed_round_uses_its_data_again(
    download: Download, season: PracticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = download("scheduled", TODAY, waited_for=1334, run_id="of-saturday")
    first, metadata = unzip(raw, "of-saturday")
    requests = len(season.requests.entries())
    # a round that is open is downloaded: its live data may have changed
    monkeypatch.setattr(tasks, "datetime", OnFriday)
    assert download("scheduled", TODAY, waited_for=1334, run_id="of-saturday") == raw
    assert len(season.requests.entries()) > requests
    requests = len(season.requests.entries())
    monkeypatch.setattr(tasks, "datetime", InNovember)
    # cleared after the close, with `wait_for_round` or without; nothing is requested
    again = download("scheduled", TODAY, run_id="of-saturday")
    assert again == raw
    assert len(season.requests.entries()) == requests
    assert unzip(again, "of-saturday")[1].live_sha256 == metadata.live_sha256
    # housekeeping has removed the downloads: the tables suffice
    for role in raw["files"]:
        Path(raw["files"][role]["path"]).unlink()
    tables, after = unzip(download("scheduled", TODAY, run_id="of-saturday"), "of-saturday")
    assert (tables["directory"], after.dataset, after.live_sha256) == (
        first["directory"],
        metadata.dataset,
        metadata.live_sha256,
    )
    # another run, and a run that has lost its rows too, have no data
    RunDirectory.from_xcom(tables).layout(load_settings().data_dir).live.unlink()
    for run_id in ("of-saturday", "another"):
        with pytest.raises(AirflowFailException, match="no longer served"):
            download("scheduled", LONG_AGO, run_id=run_id)


def test_weekday_run_with_known_dataset_needs_the_live_file_only(
    download: Download, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "datetime", OnFriday)
    friday: dict[str, Any] = {"run_type": "scheduled", "date": TODAY, "waited_for": 1333}
    raw = download(**friday)
    assert {"train", "validation", "features", "live"} <= set(raw["files"])
    first, metadata = unzip(raw, "one")
    assert (metadata.prefers_finished, metadata.may_fit, metadata.older_datasets) == (False, True, ())
    later = download(**friday)
    assert set(later["files"]) == {"live"}
    second, metadata = unzip(later, "two")
    assert (metadata.prefers_finished, metadata.may_fit) == (True, True)
    assert (metadata.dataset, metadata.live_sha256) == (first["dataset"], first["live_sha256"])
    assert (metadata.payout, metadata.benchmark) == (payout(20), "v53_lgbm_ender20")
    # each run has a directory of its own, and both share the tables
    assert first["directory"] != second["directory"]
    assert len(list(load_settings().data_dir.glob("datasets/*/training.parquet"))) == 1
    # a new fit on request, and on a Saturday
    assert "train" in download(**friday, fit="always")["files"]
    assert "train" in download("scheduled", TODAY, waited_for=1334)["files"]
    never = download("scheduled", TODAY, waited_for=1334, fit="never")
    assert set(never["files"]) == {"live"}
    assert not unzip(never, "three", fit="never")[1].may_fit


def test_unzip_of_equal_runs_makes_equal_tables_in_own_directories(download: Download) -> None:
    raw = download()
    (one, first), (two, second) = unzip(raw, "one"), unzip(raw, "two")
    assert one["directory"] != two["directory"]
    assert (first.dataset, first.live_sha256) == (second.dataset, second.live_sha256)
    assert (first.run, second.run) == ("numerai_tournament/one", "numerai_tournament/two")
    # a second attempt of a run continues in its directory
    assert unzip(raw, "one")[0]["directory"] == one["directory"]


def test_unzip_of_two_stables_with_equal_run_ids_shares_only_the_tables(download: Download) -> None:
    raw = download()
    (one, first), (two, second) = unzip(raw, "one"), unzip(raw, "one", dag="numerai_weekday")
    assert one["directory"] != two["directory"]
    assert one["directory"].rsplit("/", 1)[0] == two["directory"].rsplit("/", 1)[0]
    assert (first.run, second.run) == ("numerai_tournament/one", "numerai_weekday/one")
    assert first.dataset == second.dataset
    assert len(list(load_settings().data_dir.glob("datasets/*/training.parquet"))) == 1


def test_write_leaderboard_page_without_directory_is_skipped() -> None:
    ti: Any = SimpleNamespace(xcom_pull=lambda **_: None)
    with pytest.raises(AirflowSkipException, match="no results to show"):
        tasks.write_leaderboard_page(ti)


@pytest.mark.parametrize(
    ("run", "choices", "number"),
    [
        (("backfill", LONG_AGO), {}, "1299"),
        (("backfill", LONG_AGO), {"round": 1309}, "1309"),
        (("manual", None), {}, "1334"),
    ],
)
def test_download_archive_template_is_filled_with_the_round(
    download: Download, tmp_path: Path, run: tuple[str, datetime | None], choices: dict[str, Any], number: str
) -> None:
    for name in ("1299", "1309", "1334"):
        zipped = classic_dataset(tmp_path / "zips").path("archive")
        zipped.rename(tmp_path / "zips" / f"numerai_dataset_{name}.zip")
    raw = download(*run, source="archive", archive=str(tmp_path / "zips" / "numerai_dataset_{round}.zip"), **choices)
    assert (raw["round"], raw["version"]) == (number, f"numerai_dataset_{number}.zip")
