"""The checks of a search that a stop request has ended, with the three tables of a run."""

from __future__ import annotations

import csv
from typing import TYPE_CHECKING

import pyarrow.parquet as pq

if TYPE_CHECKING:
    from tests.images.conftest import FinishedRun


def assert_delivered(finished: FinishedRun) -> FinishedRun:
    """Check that a run has a complete fit, predictions of both tables, and no other files of a model."""
    assert finished.code == 0, finished.lines
    directory = finished.directory
    assert list(finished.predictions) == _ids(finished, "live")
    with (directory / "model" / "validation.csv").open(newline="") as stream:
        assert [row["id"] for row in csv.DictReader(stream)] == _ids(finished, "validation")
    assert (directory / "model" / "model.json").is_file()
    assert not list(directory.rglob(".*"))
    return finished


def assert_stopped_in_search(finished: FinishedRun) -> FinishedRun:
    """Check that a run has delivered its best model so far without a final fit."""
    assert_delivered(finished)
    assert finished.report["final"] is None
    assert any("stopped by SIGTERM after" in note for note in finished.report["notes"])
    return finished


def _ids(finished: FinishedRun, table: str) -> list[str]:
    ids: list[str] = pq.read_table(finished.directory / f"{table}.parquet", columns=["id"])["id"].to_pylist()
    return ids
