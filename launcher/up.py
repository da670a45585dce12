"""Airflow on this machine: `make up` keeps it running, `make airflow` talks to it, `make down` stops everything."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from launcher import local_airflow, simulator
from launcher.airflow_api import AirflowApi, now
from launcher.errors import LauncherError, UsageError
from numerai_pipeline.core.settings import load_settings

if TYPE_CHECKING:
    from contextlib import ExitStack

    from launcher.context import CommandContext
    from launcher.options import Options, ProgramOptions, UpOptions
    from launcher.processes import ServiceRecord

PARSE_SECONDS = 120.0
STOP_TIMEOUT = 20.0


def background_airflow(context: CommandContext) -> ServiceRecord | None:
    """Find the Airflow that `make up` keeps running; its details are its address, `practice_port` and `data`."""
    record = context.services.find(local_airflow.SERVICE)
    return record if record and record.owner == "up" else None


def up(context: CommandContext, options: UpOptions) -> int:
    """Start everything and keep it running, or print the address of an Airflow that already runs."""
    with context.lifecycle("up", options) as cleanup:
        if background := background_airflow(context):
            context.screen.note("Airflow", "is already running")
            address, practice_port = background.details["address"], background.details["practice_port"]
        else:
            api, practice_port = start_everything(context, options, cleanup, owner="up")
            address = api.address
        context.keep_running(cleanup)
    line = context.screen.print
    line()
    line(f"Airflow's page    {address}/dags/{local_airflow.DAG_ID}", style="bold")
    line(f"User              {local_airflow.USER}")
    line(f"Password          in {local_airflow.password_file(context.paths)}")
    line(f"Simulator         {simulator.standings(practice_port)}")
    line(f"Its log           {local_airflow.log_file(context.paths)}")
    line()
    if local_airflow.schedule() == "off":
        line("The weekly schedule is off; to turn it on: make down, then NUMERAI_SCHEDULE=sat make up")
    line("`make run` uses this Airflow; `make down` stops it.")
    return 0


def down(context: CommandContext, _: Options) -> int:
    """Stop everything started from this checkout."""
    context.signals.ignore_signals()
    stopped = ["the running command"] if context.stop_running_command(STOP_TIMEOUT) else []
    stopped += context.stop_everything("up", "run")
    if engine := context.engine.stop():
        stopped.append(engine.removeprefix("stopped "))
    context.screen.success("Stopped", ", ".join(stopped) or "nothing: nothing was running")
    return 0


def airflow(context: CommandContext, options: ProgramOptions) -> int:
    """Run ``airflow`` with the arguments in ARGS and the settings of the one of `make up`; returns its exit code."""
    try:
        arguments = shlex.split(options.arguments)
    except ValueError as error:
        msg = f"ARGS={options.arguments}: {error}"
        raise UsageError(msg) from None
    if not arguments:
        msg = "ARGS is empty: it needs the arguments of airflow"
        example = "backfill create --dag-id numerai_tournament --from-date 2026-06-01 --to-date 2026-08-01 --dry-run"
        raise UsageError(msg, f'Such as: make airflow ARGS="{example}"')
    background = background_airflow(context)
    if background is None:
        msg = "no Airflow runs in the background of this checkout"
        raise LauncherError(msg, "Start it first: make up")
    port, practice_url = background.details["port"], simulator.url(background.details["practice_port"])
    environment = local_airflow.airflow_environment(context.paths, port=port, practice_url=practice_url, scheduled=True)
    program = Path(sys.executable).with_name("airflow")
    return subprocess.run([program, *arguments], env=os.environ | environment, check=False).returncode


def start_everything(
    context: CommandContext, options: UpOptions, cleanup: ExitStack, *, owner: str, simulated: bool = True
) -> tuple[AirflowApi, int]:
    """Build the images and start Airflow and the simulator; returns Airflow's API and the simulator's port."""

    def stop() -> None:
        if stopped := context.stop_everything(owner):
            context.screen.success("Stopped", ", ".join(stopped))

    cleanup.callback(stop)
    practice_port = local_airflow.any_free_port()
    apis: list[AirflowApi] = []

    def images() -> None:
        context.build_images(options)
        context.check_data_volume()

    def start_airflow() -> None:
        apis.append(_start_airflow(context, port=options.port, practice_port=practice_port, owner=owner))

    def start_simulator() -> None:
        simulator.start(context, port=practice_port, owner=owner, calendar=options.calendar)

    context.run_parallel([images, start_airflow, *([start_simulator] if simulated else [])])
    return apis[0], practice_port


def _start_airflow(context: CommandContext, *, port: int, practice_port: int, owner: str) -> AirflowApi:
    """Start Airflow and wait until it is healthy and has parsed the present DAG."""
    paths, settings = context.paths, load_settings()
    if settings.cores == 1:
        slow = "the models run one after another; a machine with two or more cores takes less time"
        context.screen.note("Machine", f"NUMERAI_CORES is 1: {slow}")
    with context.screen.step("Airflow") as step:
        if port != (free := local_airflow.choose_port(port)):
            context.screen.note("Airflow", f"port {port} is taken: using {free}")
        step.update("starting (about 40 s)")
        environment = local_airflow.airflow_environment(
            paths, port=free, practice_url=simulator.url(practice_port), scheduled=owner == "up"
        )
        since = now()
        address = f"http://{local_airflow.HOST}:{free}"
        details = {"address": address, "port": free, "practice_port": practice_port, "data": str(paths.data)}
        record = local_airflow.start(context.services, paths, environment, owner, details)

        def is_alive() -> bool:
            return record.alive and context.services.exit_code(record) is None

        api = AirflowApi(address, local_airflow.USER, local_airflow.password_file(paths))
        if not api.wait_until_healthy(is_alive, local_airflow.START_SECONDS):
            raise local_airflow.ended_early(paths)
        step.update("reading the DAG")
        api.ensure_pool(settings.pool, settings.cores, "Cores that the models may use on this machine")
        api.wait_until_parsed(local_airflow.DAG_ID, since, is_alive, PARSE_SECONDS)
        password = local_airflow.password_file(paths).relative_to(paths.root)
        step.done(f"{api.address}, user {local_airflow.USER}, password in {password}")
    return api


def use_background_airflow(context: CommandContext, options: UpOptions, background: ServiceRecord) -> AirflowApi:
    """Connect to the Airflow of `make up`, after an update of its images and its DAG."""
    paths, address, data = context.paths, background.details["address"], background.details["data"]
    if str(paths.data) != data:
        msg = f"the Airflow of `make up` uses the data in {data}, not in {paths.data}"
        raise LauncherError(msg, "Stop it first: make down")
    context.build_images(options)
    with context.screen.step("Airflow") as step:
        step.update("using the one of `make up`")
        api = AirflowApi(address, local_airflow.USER, local_airflow.password_file(paths))
        if not api.wait_until_healthy(lambda: background.alive, 30):
            raise LauncherError("the Airflow of `make up` is unreachable", "Restart it: make down && make up")
        # the DAG that Airflow parsed last has the images' names, which change with their code
        api.wait_until_parsed(local_airflow.DAG_ID, now(), lambda: background.alive, PARSE_SECONDS)
        step.done(f"{address}, the one of `make up`")
    return api
