"""``make up`` and ``make down``: Airflow with its web page, kept running in the background until it is stopped."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from launcher import local_airflow, simulator
from launcher.context import BackgroundAirflow, CommandContext
from launcher.run import NAMES, release_engine, run_parallel, start_airflow, stop_services

if TYPE_CHECKING:
    from launcher.airflow_api import AirflowApi
    from launcher.options import Options

OWNER = "up"
STOP_TIMEOUT = 20.0


def up(context: CommandContext, options: Options) -> int:
    """Start everything and keep it running, or print the address of an Airflow that already runs."""
    with context.exclusive_command(OWNER):
        background = context.background_airflow()
        if background is not None:
            context.screen.note("Airflow", "is already running")
            _print_endpoints(context, background)
            return 0
        with ExitStack() as cleanup:
            try:
                cleanup.callback(release_engine, context)
                with context.screen.step("Docker engine") as step:
                    context.engine.ensure(step, owner="run", may_install=options.may_install)
                cleanup.callback(stop_services, context, OWNER)
                background = _start(context, options)
                # everything runs: keep it
                context.engine.keep_running()
                cleanup.pop_all()
            finally:
                context.signals.ignore_signals()
        _print_endpoints(context, background)
    return 0


def down(context: CommandContext) -> int:
    """Stop everything started from this checkout."""
    context.signals.ignore_signals()
    stopped = []
    if context.stop_running_command(STOP_TIMEOUT):
        stopped.append("the running command")
    context.services.stop_accepting()
    for owner in ("up", "run"):
        stopped += [NAMES[name] for name in context.stop_services(owner)]
    removed = context.remove_containers()
    if removed:
        stopped.append(f"{removed} containers")
    engine = context.engine.stop()
    if engine:
        stopped.append(engine.removeprefix("stopped "))
    context.screen.success("Stopped", ", ".join(stopped) or "nothing: nothing was running")
    return 0


def _start(context: CommandContext, options: Options) -> BackgroundAirflow:
    practice_port = local_airflow.any_free_port()
    apis: list[AirflowApi] = []

    def images() -> None:
        context.build_images(may_install=options.may_install)
        context.check_data_volume()

    def airflow() -> None:
        apis.append(start_airflow(context, port=options.port, practice_port=practice_port, owner=OWNER))

    def simulate() -> None:
        with context.screen.step("Simulator") as step:
            simulator.start(
                context.services, context.paths, step, port=practice_port, owner=OWNER, calendar=options.calendar
            )

    run_parallel(context, [images, airflow, simulate])
    background = BackgroundAirflow(apis[0].port, practice_port, str(context.paths.data))
    context.save_background_state(background)
    return background


def _print_endpoints(context: CommandContext, background: BackgroundAirflow) -> None:
    line = context.screen.print
    line()
    line(f"Airflow's page    {background.address}/dags/{local_airflow.DAG_ID}", style="bold")
    line(f"User              {local_airflow.USER}")
    line(f"Password          in {local_airflow.password_file(context.paths)}")
    line(f"Simulator         {simulator.standings(background.practice_port)}")
    line(f"Its log           {local_airflow.log_file(context.paths)}")
    line()
    if local_airflow.schedule() == "off":
        line("The weekly schedule is off; to turn it on: make down, then NUMERAI_SCHEDULE=sat make up")
    line("`make run` uses this Airflow; `make down` stops it.")
