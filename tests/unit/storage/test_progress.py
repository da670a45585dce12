from __future__ import annotations

import logging

import pytest

from numerai_pipeline.storage.progress import Progress

MB = 1_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr("numerai_pipeline.storage.progress.time.monotonic", lambda: now[0])
    return now


def test_progress_logs_share_speed_and_time_left_at_intervals(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(logging.getLogger("test"), "train.parquet", 100 * MB, "bytes")
    for seconds, amount in ((1, 10 * MB), (5, 10 * MB), (6, 1 * MB), (10, 19 * MB)):
        clock[0] = seconds
        progress.advance(amount)
    clock[0] = 20.0
    progress.finish("downloaded")
    assert caplog.messages == [
        "train.parquet: 20.0 MB of about 100.0 MB (20%), 4.0 MB/s, about 20 s left",
        "train.parquet: 40.0 MB of about 100.0 MB (40%), 4.0 MB/s, about 15 s left",
        "train.parquet: 40.0 MB downloaded in 20 s (2.0 MB/s)",
    ]


def test_progress_earlier_work_counts_for_the_share_but_not_the_speed(
    clock: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress(logging.getLogger("test"), "x", 100 * MB, "bytes", done=50 * MB)
    clock[0] = 10.0
    progress.advance(10 * MB)
    assert caplog.messages == ["x: 60.0 MB of about 100.0 MB (60%), 1.0 MB/s, about 40 s left"]


def test_progress_unknown_or_wrong_total_has_no_time_left(clock: list[float], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    unknown = Progress(logging.getLogger("test"), "x", 0, "rows")
    wrong = Progress(logging.getLogger("test"), "y", 10, "rows")
    clock[0] = 10.0
    unknown.advance(1_000)
    wrong.advance(20)
    assert caplog.messages == ["x: 1,000 rows so far, 100 rows/s", "y: 20 rows of about 10 rows (99%), 2 rows/s"]
