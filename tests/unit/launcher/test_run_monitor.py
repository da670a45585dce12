from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx
from rich.console import Console

from launcher.console import Screen, seconds
from launcher.run_monitor import TaskView, failure_message, last_log_line, log_path, render, task_log_lines
from launcher.run_report import predictions_table, show_predictions, show_submissions

AT = datetime(2026, 11, 21, 13, 5, 0, tzinfo=UTC)

# Task instances and a log as Airflow 3.3 gave them, without the fields that the launcher does not read.
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
    messages = {"svm": "fitting: 40 %", "xgboost": "out of memory"}
    views = [TaskView.from_api(instance) for instance in INSTANCES]
    views = [TaskView(**{**view.__dict__, "last_message": messages.get(view.name, "")}) for view in views]
    console.print(render(views, AT, "Run r: running"))
    return [line.rstrip() for line in console.export_text().splitlines()]


def test_render_shows_state_and_attempt_of_each_task() -> None:
    rows = {line.split()[0]: line.split() for line in drawn()[2:]}
    assert rows["download"] == ["download", "done", "1/4", "12", "s"]
    assert rows["svm"] == ["svm", "running", "2/4", "3", "min", "05", "s", "fitting:", "40", "%"]
    assert rows["xgboost"] == ["xgboost", "failed", "4/4", "2.3", "s", "out", "of", "memory"]
    assert rows["tsne"] == ["tsne", "skipped"]
    assert rows["exploring"] == ["exploring", "waiting"]


def test_render_on_a_narrow_terminal_shortens_messages_only() -> None:
    lines = drawn(width=50)
    assert all(len(line) <= 50 for line in lines)
    assert any("running" in line and "…" in line for line in lines)


def test_task_log_lines_excludes_lines_of_airflow() -> None:
    assert [event["event"] for event in task_log_lines(LOG)] == [LOG[-1]["event"]]
    assert last_log_line(LOG) == "fitting: 40 %, about 12 s to go"
    assert last_log_line([]) == ""
    assert log_path(LOG) == LOG[1]["event"]


def test_failure_message_is_the_exception_in_one_line() -> None:
    assert failure_message(FAILURE) == "training.parquet: column 'era' is missing"
    assert failure_message(LOG) == "fitting: 40 %, about 12 s to go"
    assert failure_message([]) == "no message in its log"


def test_show_predictions_leaves_unknown_values_blank() -> None:
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
    output = screen.console.export_text()
    assert "13,750  0.69295" in output
    assert "66.7%" in output
    assert "/d/svm.csv" in output
    assert "round 1405, took 1 min 05 s" in output
    assert predictions_table(models).row_count == 3


def test_show_submissions_without_any_prints_only_if_requested() -> None:
    screen = Screen(Console(record=True, width=100, force_terminal=False))
    show_submissions(screen, None, requested=False)
    assert screen.console.export_text() == ""
    show_submissions(screen, None, requested=True)
    assert "nothing; the log of the task submit has the reason" in screen.console.export_text()
    record = {"model": "ensemble_selection", "round": 1334, "status": "on-time"}
    show_submissions(screen, {"round": 1334, "submissions": {"mine": record}, "late": []}, requested=True)
    assert "✓ Submitted       ensemble_selection as mine: on-time for round 1334" in screen.console.export_text()


def test_show_submissions_late_names_the_close_of_the_round() -> None:
    screen = Screen(Console(record=True, width=200, force_terminal=False))
    record = {"model": "svm", "round": 1335, "status": "queued"}
    show_submissions(screen, {"round": 1334, "submissions": {"mine": record}, "late": ["mine"]}, requested=True)
    text = "svm as mine: queued for round 1335, as it came after the close of round 1334"
    assert text in screen.console.export_text()


def test_show_predictions_without_a_result_succeeds() -> None:
    screen = Screen(Console(record=True, width=100, force_terminal=False))
    show_predictions(screen, None, 1.0)
    assert "Run succeeded" in screen.console.export_text()


def test_screen_plain_output_has_no_escape_codes() -> None:
    screen = Screen(Console(record=True, width=40, force_terminal=False))
    with screen.console.capture() as capture, screen.step("Model images") as step:
        step.update("building")
        step.update("building")
        step.done("classic built, and this line is longer than the console is wide")
    lines = capture.get().splitlines()
    assert len(lines) == 2
    assert "\x1b" not in capture.get()
    assert lines[0] == "· Model images    building …"


def test_seconds_formats_durations() -> None:
    assert [seconds(number) for number in (0.44, 12.4, 59.7, 185, 7800)] == [
        "0.4 s",
        "12 s",
        "1 min 00 s",
        "3 min 05 s",
        "2 h 10 min",
    ]


def test_recorded_task_instances_are_valid_json() -> None:
    assert httpx.Response(200, json=INSTANCES).json() == INSTANCES
