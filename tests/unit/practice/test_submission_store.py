"""Submissions to the simulator and their status by round, with numerapi as the client."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import numerapi
import pandas as pd  # type: ignore[import-untyped]
import pytest
import requests

from practice.faults import Fault
from practice.server import PracticeServer, running
from tests.unit.practice.simulator import (
    ACCOUNT,
    SATURDAY,
    MovingSeason,
    example_predictions,
    latest_entries,
    make_client,
)

LATE = Fault(kind="late", on="graphql", match="create_submission(")
TUESDAY = SATURDAY + timedelta(days=3)


def submit(api: numerapi.NumerAPI, server: PracticeServer, name: str = "alpha") -> str:
    """Submit the example predictions of the current round; returns the submission's id."""
    predictions = example_predictions(server.season, server.season.current_round().number)
    submission: str = api.upload_predictions(model_id=api.get_models()[name], df=predictions)
    return submission


def test_submission_within_the_window_is_on_time(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    submission = submit(api, server)
    assert latest_entries(api) == [(1334, "on-time"), (1333, "none")]
    assert latest_entries(api, "beta") == [(1334, "none"), (1333, "none")]
    model = api.get_models()["alpha"]
    assert [entry["id"] for entry in api.submission_ids(model)] == [submission]
    (stored,) = server.store.submissions(model)
    pd.testing.assert_frame_equal(pd.read_csv(server.store.file(stored)), example_predictions(server.season, 1334))


def test_submission_after_the_close_is_late_and_queued(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    server.faults.add(LATE)
    submission = submit(api, server)
    query = "{ account { models { latestSubmissions { id status roundNumber } } } }"
    entries = api.raw_query(query, authorization=True)["data"]["account"]["models"][0]["latestSubmissions"]
    assert [(entry["id"], entry["status"], entry["roundNumber"]) for entry in entries] == [
        (submission, "queued", 1335),
        (submission, "late", 1334),
        (None, "none", 1333),
        (None, "none", 1332),
    ]


def test_late_submission_after_an_on_time_one_is_only_queued(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    submit(api, server)
    server.faults.add(LATE)
    submit(api, server)
    assert latest_entries(api) == [(1335, "queued"), (1334, "on-time"), (1333, "none")]


def test_queued_submission_is_on_time_once_the_next_round_opens(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    server.faults.add(LATE)
    queued = submit(api, server)
    season.clock = TUESDAY
    assert latest_entries(api) == [(1335, "on-time"), (1334, "late")]
    newer = submit(api, server)
    assert latest_entries(api) == [(1335, "on-time"), (1334, "late")]
    model = api.get_models()["alpha"]
    scored = {entry.round: entry.submission.id for entry in server.store.scored(model) if entry.submission}
    assert scored == {1335: newer, 1334: queued}


def test_latest_submissions_list_as_many_rounds_as_queried(
    api: numerapi.NumerAPI, server: PracticeServer, season: MovingSeason
) -> None:
    submit(api, server)
    season.clock = SATURDAY + timedelta(weeks=1)
    assert latest_entries(api, rounds=5) == [*((number, "none") for number in range(1339, 1334, -1)), (1334, "on-time")]
    assert len(latest_entries(api, rounds=60)) == 61


def test_last_submission_of_a_window_counts(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    first, second = submit(api, server), submit(api, server)
    model = api.get_models()["alpha"]
    assert [entry["id"] for entry in api.submission_ids(model)] == [second, first]
    (entry,) = server.store.scored(model)
    assert entry.submission is not None
    assert entry.submission.id == second


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda table: table.rename(columns={"prediction": "score"}), "invalid_submission_headers"),
        (lambda table: table.iloc[1:], "invalid_submission_ids"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "invalid_submission_ids"),
        (lambda table: table.assign(prediction=0.5), "invalid_submission_values"),
        (lambda table: table.assign(prediction=table["prediction"].where(table.index > 0)), "NaNs"),
        (lambda table: table.assign(prediction=table["prediction"].where(table.index > 0, 1.0)), "exclusive"),
        (lambda table: table.assign(prediction=table["prediction"] * 2), "invalid_submission_values"),
        (lambda table: table.assign(prediction="high"), "Invalid comparison"),
        (lambda table: table.iloc[:0], "invalid_submission_ids"),
    ],
)
def test_invalid_file_is_refused_and_not_listed(
    api: numerapi.NumerAPI, server: PracticeServer, damage: Callable[[pd.DataFrame], pd.DataFrame], text: str
) -> None:
    model = api.get_models()["alpha"]
    with pytest.raises(ValueError, match=rf"simulator: .*{text}"):
        api.upload_predictions(model_id=model, df=damage(example_predictions(server.season, 1334)))
    assert latest_entries(api, rounds=0) == [(1334, "none")]
    assert server.store.submissions(model) == []


def test_failed_put_leaves_no_file_to_submit(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    server.faults.add(Fault(kind="status", on="upload", status=403))
    with pytest.raises(ValueError, match="simulator: no file was uploaded"):  # numerapi ignores the status of the PUT
        submit(api, server)
    assert latest_entries(api, rounds=0) == [(1334, "none")]


def test_reject_fault_refuses_a_valid_file(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    server.faults.add(Fault(kind="reject", on="graphql", match="create_submission(", message="rejected on request"))
    with pytest.raises(ValueError, match="simulator: rejected on request"):
        submit(api, server)
    submit(api, server)
    assert latest_entries(api, rounds=0) == [(1334, "on-time")]


def test_unlisted_fault_hides_the_newest_submission(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    first, second = submit(api, server), submit(api, server)
    server.faults.add(Fault(kind="unlisted", on="graphql", match="latestSubmissions", count=1))
    query = "{ account { models { latestSubmissions { id } } } }"
    seen = []
    for _ in range(2):
        models = api.raw_query(query, authorization=True)["data"]["account"]["models"]
        seen.append(models[0]["latestSubmissions"][0]["id"])
    assert seen == [first, second]


def test_submissions_outlive_the_server(season: MovingSeason, server: PracticeServer, api: numerapi.NumerAPI) -> None:
    submit(api, server)
    season.clock = SATURDAY + timedelta(weeks=20)
    season.prepare()  # removes old files, but no submissions
    with running(season, [ACCOUNT]) as restarted:
        model = requests.get(f"{restarted.address}/practice/standings", timeout=30).json()["models"][0]
    assert (model["name"], model["submitted"], model["scored"]) == ("alpha", 1, 1)


def test_submission_time_is_the_seasons(api: numerapi.NumerAPI, server: PracticeServer) -> None:
    submit(api, server)
    (entry,) = make_client().submission_ids(api.get_models()["alpha"])
    assert entry["insertedAt"] == "2026-08-15T13:00:00Z"
