"""What a run came to: the table of its predictions, or what went wrong and where to read on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from launcher.console import seconds
from launcher.follow import log_path, what_went_wrong

if TYPE_CHECKING:
    from collections.abc import Mapping

    from launcher.airflow_api import AirflowApi
    from launcher.console import Screen
    from launcher.follow import Follower

VERDICT_TASK = "exploring"
SUBMITTING_TASK = "submit"


def show_predictions(screen: Screen, verdict: Any, duration: float) -> None:
    """Show what the run left, from what its last task returned; whatever is missing there is left blank."""
    facts: Mapping[str, Any] = verdict if isinstance(verdict, dict) else {}
    models: Mapping[str, Any] = facts.get("models") or {}
    screen.say()
    if models:
        screen.console.print(predictions_table(models))
        screen.say("Scores are those of the validation eras.", style="dim")
        screen.say()
        screen.say("The predictions:", style="bold")
        for name, summary in models.items():
            screen.say(f"  {name:<24}{(summary or {}).get('predictions') or 'none'}")
    about = [f"round {facts['round']}" if facts.get("round") else "", f"took {seconds(duration)}"]
    screen.say()
    screen.tick("Run succeeded", ", ".join(part for part in about if part))


def show_submissions(screen: Screen, result: Any, *, asked_for: bool) -> None:
    """Show what was handed in, from what the task that did returned; that nothing was, only if it was asked for."""
    facts: Mapping[str, Any] = result if isinstance(result, dict) else {}
    for name, record in (facts.get("submissions") or {}).items():
        screen.tick("Submitted", f"{record['model']} as {name}: accepted for round {record['round']}")
    if asked_for and not facts:
        screen.note("Submitted", f"nothing; the task {SUBMITTING_TASK} says why in its log")


def predictions_table(models: Mapping[str, Any]) -> Table:
    """Draw the table of the models' scores."""
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


def show_failure(screen: Screen, api: AirflowApi, follower: Follower) -> None:
    """Show each task that failed: with what, and where its log is."""
    failed = [task for task in follower.tasks if task.state == "failed"]
    not_run = [task.name for task in follower.tasks if task.state == "upstream_failed"]
    done = [task.name for task in follower.tasks if task.state == "success"]
    screen.say()
    screen.fail("Run failed", ", ".join(task.name for task in failed) or "no task says why")
    for task in failed:
        events = api.log_events(follower.dag_id, follower.run_id, task.name, task.attempt)
        screen.say(f"  {task.name}: {what_went_wrong(events)}")
        screen.say(f"    tried {task.attempt} of {task.attempts} times; the log: {log_path(events) or 'not found'}")
    if not_run:
        screen.say(f"  not run because of that: {', '.join(not_run)}")
    if done:
        screen.say(f"  done, and kept for the next run: {', '.join(done)}")


def _whole(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _score(value: Any, digits: int) -> str:
    return f"{value:.{digits}f}" if isinstance(value, (int, float)) else "unknown"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, (int, float)) else "unknown"
