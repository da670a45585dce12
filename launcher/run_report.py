"""The report on a finished run: the table of its predictions, or its errors and the paths of their logs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.text import Text

from launcher.console import seconds, table
from launcher.run_monitor import failure_message, log_path

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.table import Table

    from launcher.airflow_api import AirflowApi
    from launcher.console import Screen
    from launcher.run_monitor import TaskView

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
    screen.print()
    of_round = f"round {summary['round']}, " if summary.get("round") else ""
    screen.success("Run succeeded", f"{of_round}took {seconds(duration)}")


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
    made = table("Predictions", "model", "rows", "logloss", "consistency", "correlation", "time")
    for name, summary in models.items():
        known: Mapping[str, Any] = summary or {}
        duration = known.get("seconds")
        made.add_row(
            Text(name),
            f"{known['rows']:,}" if isinstance(known.get("rows"), int) else "",
            _score(known.get("logloss"), ".5f"),
            _score(known.get("consistency"), ".1%"),
            _score(known.get("correlation"), ".4f"),
            seconds(duration) if isinstance(duration, (int, float)) else "",
        )
    return made


def show_failure(screen: Screen, api: AirflowApi, dag_id: str, run_id: str, tasks: Sequence[TaskView]) -> None:
    """Print each failed task with its error and the path of its log."""
    failed = [task for task in tasks if task.state == "failed"]
    not_run, done = (
        ", ".join(task.name for task in tasks if task.state == state) for state in ("upstream_failed", "success")
    )
    screen.print()
    screen.error("Run failed", ", ".join(task.name for task in failed) or "no task has failed")
    for task in failed:
        events = api.log_events(dag_id, run_id, task.name, task.attempt)
        screen.print(f"  {task.name}: {failure_message(events)}")
        screen.print(f"    attempt {task.attempt} of {task.attempts}; the log: {log_path(events) or 'not found'}")
    if not_run:
        screen.print(f"  not run as a result: {not_run}")
    if done:
        screen.print(f"  succeeded, kept for the next run: {done}")


def _score(value: Any, form: str) -> str:
    return f"{value:{form}}" if isinstance(value, (int, float)) else "unknown"
