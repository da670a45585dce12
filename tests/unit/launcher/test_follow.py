from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console

from launcher.console import Screen, seconds
from launcher.follow import TaskView, last_words, log_path, own_words, render, what_went_wrong
from launcher.outcome import predictions_table, show_predictions, show_submissions

AT = datetime(2026, 11, 21, 13, 5, 0, tzinfo=UTC)

# Task instances and a log as Airflow 3.3 gave them, without the fields nobody reads here.
INSTANCES: list[dict[str, Any]] = [
    {
        "task_id": "download",
        "state": "success",
        "try_number": 1,
        "max_tries": 3,
        "start_date": "2026-11-21T13:00:00.5Z",
        "end_date": "2026-11-21T13:00:12.5Z",
    },
    {
        "task_id": "svm",
        "state": "running",
        "try_number": 2,
        "max_tries": 3,
        "start_date": "2026-11-21T13:01:55Z",
        "end_date": None,
    },
    {
        "task_id": "xgboost",
        "state": "failed",
        "try_number": 4,
        "max_tries": 3,
        "start_date": "2026-11-21T13:01:00Z",
        "end_date": "2026-11-21T13:01:02.3Z",
    },
    {
        "task_id": "tsne",
        "state": "skipped",
        "try_number": 0,
        "max_tries": 3,
        "start_date": "2026-11-21T13:01:00Z",
        "end_date": None,
    },
    {"task_id": "exploring", "state": None, "try_number": 0, "max_tries": 3, "start_date": None, "end_date": None},
]
LOG: list[dict[str, Any]] = [
    {"event": "::group::Log message source details"},
    {"event": "/home/.airflow/logs/dag_id=numerai_tournament/run_id=r/task_id=svm/attempt=1.log"},
    {"event": "::endgroup::"},
    {"event": "::group::Pre Execute", "level": "info"},
    {"event": "Filling up the DagBag", "level": "info"},
    {"event": "::endgroup::", "level": "info"},
    {"event": "GitWildMatchPattern is deprecated", "level": "warning", "logger": "py.warnings"},
    {"event": "fitting: 40 %, about 12 s to go\x1b[0m\n", "level": "info"},
]
FAILURE: list[dict[str, Any]] = [
    *LOG,
    {
        "event": "Task failed with exception",
        "level": "error",
        "error_detail": [
            {"exc_type": "BadInputError", "exc_value": "training.parquet: column 'era'\nis missing"},
        ],
    },
    {"event": "::group::Post Execute", "level": "info"},
    {"event": "::endgroup::", "level": "info"},
]


def drawn(width: int = 100) -> list[str]:
    console = Console(record=True, width=width, force_terminal=True)
    words = {"svm": "fitting: 40 %", "xgboost": "out of memory"}
    views = [TaskView.from_api(instance) for instance in INSTANCES]
    views = [TaskView(**{**view.__dict__, "words": words.get(view.name, "")}) for view in views]
    console.print(render(views, AT, "Run r: running"))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_the_table_shows_each_task_as_it_is() -> None:
    rows = {line.split()[0]: line.split() for line in drawn()[2:]}
    assert rows["download"] == ["download", "done", "1/4", "12", "s"]
    assert rows["svm"] == ["svm", "running", "2/4", "3", "min", "05", "s", "fitting:", "40", "%"]
    assert rows["xgboost"] == ["xgboost", "failed", "4/4", "2.3", "s", "out", "of", "memory"]
    assert rows["tsne"] == ["tsne", "skipped"]
    assert rows["exploring"] == ["exploring", "waiting"]


def test_a_narrow_terminal_shortens_words_but_not_states() -> None:
    lines = drawn(width=50)
    assert all(len(line) <= 50 for line in lines)
    assert any("running" in line and "…" in line for line in lines)


def test_a_task_is_heard_through_what_airflow_says_around_it() -> None:
    assert [event["event"] for event in own_words(LOG)] == [LOG[-1]["event"]]
    assert last_words(LOG) == "fitting: 40 %, about 12 s to go"
    assert last_words([]) == ""
    assert log_path(LOG) == LOG[1]["event"]


def test_what_went_wrong_is_the_exception_in_one_line() -> None:
    assert what_went_wrong(FAILURE) == "training.parquet: column 'era' is missing"
    assert what_went_wrong(LOG) == "fitting: 40 %, about 12 s to go"
    assert what_went_wrong([]) == "it said nothing"


def test_the_predictions_are_shown_with_whatever_is_known() -> None:
    models = {
        "svm": {
            "rows": 13750,
            "logloss": 0.692954,
            "consistency": 0.6667,
            "correlation": None,
            "seconds": 3.66,
            "predictions": "/d/svm.csv",
        },
        "legacy": {"rows": None, "logloss": None},
        "odd": None,
    }
    screen = Screen(Console(record=True, width=100, force_terminal=False))
    show_predictions(screen, {"round": "1405", "models": models}, 65.0)
    said = screen.console.export_text()
    assert "13,750  0.69295" in said
    assert "66.7%" in said
    assert "/d/svm.csv" in said
    assert "round 1405, took 1 min 05 s" in said
    assert predictions_table(models).row_count == 3


def test_what_was_handed_in_is_shown_and_that_nothing_was_only_if_it_was_asked_for() -> None:
    screen = Screen(Console(record=True, width=100, force_terminal=False))
    show_submissions(screen, None, asked_for=False)
    assert screen.console.export_text() == ""
    show_submissions(screen, None, asked_for=True)
    assert "nothing; the task submit says why" in screen.console.export_text()
    record = {"model": "ensemble_selection", "round": 1335}
    show_submissions(screen, {"round": 1335, "submissions": {"mine": record}}, asked_for=True)
    assert "ensemble_selection as mine: accepted for round 1335" in screen.console.export_text()


def test_a_verdict_that_is_missing_is_no_reason_to_fail() -> None:
    screen = Screen(Console(record=True, width=100, force_terminal=False))
    show_predictions(screen, None, 1.0)
    assert "Run succeeded" in screen.console.export_text()


def test_plain_output_has_no_escape_codes_and_one_line_a_step() -> None:
    screen = Screen(Console(record=True, width=40, force_terminal=False))
    with screen.console.capture() as capture, screen.step("Model images") as step:
        step.update("building")
        step.update("building")
        step.done("classic built, and this line is longer than the console is wide")
    lines = capture.get().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in capture.get()
    assert lines[0] == "· Model images    building …"


def test_durations_are_said_as_a_person_says_them() -> None:
    assert [seconds(number) for number in (0.44, 12.4, 59.7, 185, 7800)] == [
        "0.4 s",
        "12 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_the_recorded_states_are_real_json() -> None:
    assert httpx.Response(200, json=INSTANCES).json() == INSTANCES
