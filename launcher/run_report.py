"""The report on a finished run: the table of its predictions, or its errors and the paths of their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from launcher.console import seconds
from launcher.run_monitor import failure_message, log_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.airflow_api import AirflowApi
    from launcher.console import Screen
    from launcher.run_monitor import RunMonitor

SUMMARY_TASK = "exploring"
SUBMITTING_TASK = "submit"


def show_predictions(screen: Screen, result: Any, duration: float) -> None:
    """Print the run's predictions, from its last task's return value; missing values stay blank."""
    summary: Mapping[str, Any] = result if isinstance(result, dict) else {}
    models: Mapping[str, Any] = summary.get("models") or {}
    screen.print()
    if models:
        screen.console.print(predictions_table(models))
        screen.print("Scores are those of the validation eras.", style="dim")
        screen.print()
        screen.print("The predictions:", style="bold")
        for name, scores in models.items():
            screen.print(f"  {name:<24}{(scores or {}).get('predictions') or 'none'}")
    parts = [f"round {summary['round']}" if summary.get("round") else "", f"took {seconds(duration)}"]
    screen.print()
    screen.success("Run succeeded", ", ".join(part for part in parts if part))


def show_submissions(screen: Screen, result: Any, *, requested: bool) -> None:
    """Print the submissions, from the return value of their task; without any, a note if they were requested."""
    summary: Mapping[str, Any] = result if isinstance(result, dict) else {}
    for name, record in (summary.get("submissions") or {}).items():
        outcome = f"{record['model']} as {name}: {record['status']} for round {record['round']}"
        if name in summary.get("late", []):
            screen.note("Submitted", f"{outcome}, as it came after the close of round {summary['round']}")
        else:
            screen.success("Submitted", outcome)
    if requested and not summary:
        screen.note("Submitted", f"nothing; the log of the task {SUBMITTING_TASK} has the reason")


def predictions_table(models: Mapping[str, Any]) -> Table:
    """Make the table of the models' scores."""
    table = Table(box=None, pad_edge=False, title="Predictions", title_justify="left", title_style="bold")
    table.add_column("model", no_wrap=True)
    for title in ("rows", "logloss", "consistency", "correlation", "time"):
        table.add_column(title, justify="right", no_wrap=True)
    for name, summary in models.items():
        known: Mapping[str, Any] = summary or {}
        duration = known.get("seconds")
        table.add_row(
            Text(name),
            _whole(known.get("rows")),
            _score(known.get("logloss"), 5),
            _percent(known.get("consistency")),
            _score(known.get("correlation"), 4),
            seconds(duration) if isinstance(duration, (int, float)) else "",
        )
    return table


def show_failure(screen: Screen, api: AirflowApi, monitor: RunMonitor) -> None:
    """Print each failed task with its error and the path of its log."""
    failed = [task for task in monitor.tasks if task.state == "failed"]
    not_run = [task.name for task in monitor.tasks if task.state == "upstream_failed"]
    done = [task.name for task in monitor.tasks if task.state == "success"]
    screen.print()
    screen.error("Run failed", ", ".join(task.name for task in failed) or "no task has failed")
    for task in failed:
        events = api.log_events(monitor.dag_id, monitor.run_id, task.name, task.attempt)
        screen.print(f"  {task.name}: {failure_message(events)}")
        screen.print(f"    attempt {task.attempt} of {task.attempts}; the log: {log_path(events) or 'not found'}")
    if not_run:
        screen.print(f"  not run as a result: {', '.join(not_run)}")
    if done:
        screen.print(f"  succeeded, kept for the next run: {', '.join(done)}")


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _score(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "unknown"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, (int, float)) else "unknown"
