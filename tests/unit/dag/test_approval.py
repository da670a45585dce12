"""The text of an approval, and the outcome of an answer or of a timeout."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from numerai_pipeline.core.stables import Submissions
from numerai_pipeline.dag.approval import SubmissionApproval, approval_text
from numerai_pipeline.numerai_api.submission_files import RunPredictions
from numerai_pipeline.storage.layout import RunLayout

LINK = "http://127.0.0.1:8080/numerai/leaderboard/?round=1335&run=0123456789ab"
FOUND = {"beta": RunPredictions("ensemble_selection", "3f2a", "da7a", "0123456789abcdef" * 4, Path("a"), Path("b"))}
CHOSEN = {"alpha": "svm", "beta": "ensemble_selection"}


@pytest.fixture
def layout(tmp_path: Path) -> RunLayout:
    return RunLayout(tmp_path / "1335" / "0123456789ab")


def test_approval_text_shows_leaderboard_row_of_each_submission(layout: RunLayout) -> None:
    rows = [
        {"rank": 1, "model": "ensemble_selection", "payout": 0.1234, "corr": 0.0213, "sharpe": 0.91, "logloss": None},
        {"rank": 2, "model": "xgboost", "corr": 0.02, "sharpe": 0.8, "logloss": None},
    ]
    layout.directory.mkdir(parents=True)
    layout.leaderboard.write_text(json.dumps({"models": rows}))
    text = approval_text(layout, 1335, CHOSEN, FOUND, LINK)
    assert text.splitlines() == [
        "Submissions for round 1335:",
        "",
        "| Numerai model | predictions of | SHA-256 | rank | payout score | mean CORR | Sharpe |",
        "|---|---|---|---|---|---|---|",
        "| alpha | svm | no predictions | ? of 2 |  |  |  |",
        "| beta | ensemble_selection | 0123456789ab | 1 of 2 | 0.1234 | 0.0213 | 0.9100 |",
        "",
        f"[The whole leaderboard]({LINK})",
    ]


def test_approval_text_without_leaderboard_lists_submissions(layout: RunLayout) -> None:
    text = approval_text(layout, 1335, CHOSEN, FOUND, LINK)
    assert "| beta | ensemble_selection | 0123456789ab |" in text
    assert text.endswith("There is no leaderboard: `evaluate` failed.")


def approval() -> SubmissionApproval:
    return SubmissionApproval(
        task_id="approve",
        predictions=[],
        models=[],
        submissions=Submissions(),
        subject="?",
        response_timeout=timedelta(hours=36),
    )


def test_execute_complete_timeout_fails_without_retry() -> None:
    context: Any = {}
    with pytest.raises(AirflowFailException, match=r"no approval within 1 day, 12:00:00 \(NUMERAI_APPROVAL_HOURS\)"):
        approval().execute_complete(context, {"error": "no response", "error_type": "timeout"})


def test_execute_complete_approval_continues_the_run() -> None:
    context: Any = {}
    event = {
        "chosen_options": ["Approve"],
        "params_input": {},
        "responded_at": datetime.now(UTC),
        "responded_by_user": None,
    }
    assert approval().execute_complete(context, event)["chosen_options"] == ["Approve"]
