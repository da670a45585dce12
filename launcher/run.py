"""``make run``: sets everything up, runs the DAG once, prints the predictions, and stops everything again."""

from __future__ import annotations

import contextlib
import os
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from launcher import local_airflow, simulator
from launcher.airflow_api import now
from launcher.console import seconds
from launcher.errors import EXIT_FAILED, LauncherError
from launcher.run_monitor import follow_run
from launcher.run_report import SUBMITTING_TASK, SUMMARY_TASK, show_failure, show_predictions, show_submissions
from launcher.up import background_airflow, start_everything, use_background_airflow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.airflow_api import AirflowApi
    from launcher.context import CommandContext
    from launcher.options import RunOptions

# stopping may take 15 s in all, most of them for Airflow, containers and engine
STOP_TIMEOUT = 2.0


@contextmanager
def airflow_session(context: CommandContext, options: RunOptions, command: str) -> Iterator[AirflowApi]:
    """Set everything up, yield Airflow's API, and stop everything that was not running before."""
    dag_id = local_airflow.DAG_ID
    with context.lifecycle(command, options) as cleanup:
        background = background_airflow(context)
        needs_simulator = options.source == "practice" and not os.environ.get("NUMERAI_PRACTICE_URL")
        if background is None:
            context.remove_containers()
            api, _ = start_everything(context, options, cleanup, owner="run", simulated=needs_simulator)
            # an unfinished run of a killed command must not continue beside this one
            for run_id in api.unfinished_runs(dag_id):
                context.screen.note("Airflow", f"ending the unfinished run {run_id}")
                api.fail_run(dag_id, run_id, note="unfinished run of a command that was killed")
        else:
            api = use_background_airflow(context, options, background)
            if needs_simulator and context.services.find(simulator.SERVICE) is None:
                simulator.start(
                    context, port=background.details["practice_port"], owner="up", calendar=options.calendar
                )
        if (api.dag(dag_id) or {}).get("is_paused"):
            api.set_paused(dag_id, paused=False)
            cleanup.callback(_pause, api, dag_id)
        yield api


def _pause(api: AirflowApi, dag_id: str) -> None:
    with contextlib.suppress(LauncherError):
        api.set_paused(dag_id, paused=True)


def run(context: CommandContext, options: RunOptions) -> int:
    """Set everything up, run the DAG once, print the result, and stop everything again."""
    started, dag_id, run_id = time.monotonic(), local_airflow.DAG_ID, f"make_run__{now():%Y-%m-%dT%H-%M-%S}"
    with airflow_session(context, options, "run") as api:
        waiting = api.unfinished_runs(dag_id)
        most = int((api.dag(dag_id) or {}).get("max_active_runs") or 1)
        if len(waiting) >= most:
            waits = f"waits until one of {', '.join(waiting)} has ended"
            context.screen.note("Run", f"{waits}: the DAG has at most {most} active runs")
        with ExitStack() as unfinished:
            unfinished.callback(end_run, context, api, dag_id, run_id, "run")
            api.trigger(dag_id, run_id, options.conf)
            context.screen.success("Run", f"{run_id} started: {format_conf(options)}")
            state, tasks = follow_run(api, context.screen, dag_id, run_id, lambda: require_airflow(context))
            unfinished.pop_all()
        duration = time.monotonic() - started
        if state != "success":
            show_failure(context.screen, api, dag_id, run_id, tasks)
            context.screen.print(f"  after {seconds(duration)}")
            return EXIT_FAILED
        show_predictions(context.screen, api.return_value(dag_id, run_id, SUMMARY_TASK), duration)
        submitted = api.return_value(dag_id, run_id, SUBMITTING_TASK)
        show_submissions(context.screen, submitted, requested=bool(options.submit))
    return 0


def end_run(context: CommandContext, api: AirflowApi, dag_id: str, run_id: str, command: str) -> None:
    """End a run of a command that its user has stopped, and in any case remove its containers."""
    with context.signals.signals_ignored():
        with contextlib.suppress(LauncherError):
            api.fail_run(dag_id, run_id, note=f"stopped by the user of make {command}", retry_seconds=STOP_TIMEOUT)
        context.remove_containers(run_id)


def require_airflow(context: CommandContext) -> None:
    """Raise a LauncherError if the Airflow that was started from this checkout has ended."""
    record = context.services.find(local_airflow.SERVICE)
    if record is None or context.services.exit_code(record) is not None:
        raise local_airflow.ended_early(context.paths)


def format_conf(options: RunOptions) -> str:
    """Format the parameters of a run as on the command line."""
    conf = {name.upper(): ",".join(value) if isinstance(value, list) else value for name, value in options.conf.items()}
    return ", ".join(f"{name}={value}" for name, value in conf.items())
