"""``make run``: sets everything up, runs the DAG once, prints the predictions, and stops everything again."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from launcher import local_airflow, simulator
from launcher.airflow_api import AirflowApi, now
from launcher.console import seconds
from launcher.errors import EXIT_FAILED, LauncherError
from launcher.run_monitor import RunMonitor
from launcher.run_report import SUBMITTING_TASK, SUMMARY_TASK, show_failure, show_predictions, show_submissions
from numerai_pipeline.core.settings import load_settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from launcher.context import BackgroundAirflow, CommandContext
    from launcher.options import Options

    Work: TypeAlias = Callable[[CommandContext, Options, AirflowApi, ExitStack, float], int]

OWNER = "run"
NAMES = {local_airflow.SERVICE: "Airflow", simulator.SERVICE: "the simulator"}
PARSE_SECONDS = 120.0
# stopping may take 15 s in all, most of them for Airflow, containers and engine
STOP_TIMEOUT = 2.0


def run(context: CommandContext, options: Options) -> int:
    """Set everything up, run the DAG once, print the result, and stop everything again."""
    return with_airflow(context, options, _run_dag)


def with_airflow(context: CommandContext, options: Options, work: Work) -> int:
    """Set everything up, do some work with Airflow, and stop everything that was not running before."""
    started = time.monotonic()
    with context.exclusive_command(OWNER), ExitStack() as cleanup:
        try:
            cleanup.callback(release_engine, context)
            with context.screen.step("Docker engine") as step:
                context.engine.ensure(step, owner=OWNER, may_install=options.may_install)
            background = context.background_airflow()
            if background is None:
                context.remove_containers()
                api = _start_own_airflow(context, options, cleanup)
            else:
                api = _use_background_airflow(context, options, background)
            return work(context, options, api, cleanup, started)
        finally:
            # a signal must not interrupt the clean-up
            context.signals.ignore_signals()


def run_parallel(context: CommandContext, work: Sequence[Callable[[], None]]) -> None:
    """Run several functions in parallel; the first failure, or a stop, ends the others.

    Raises
    ------
    Exception
        The first failure.
    """
    results: queue.Queue[BaseException | None] = queue.Queue()

    def do(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            results.put(error)
        else:
            results.put(None)

    for task in work:
        # daemons: a thread that waits for a stopped service must not keep the command from ending
        threading.Thread(target=do, args=(task,), daemon=True).start()
    try:
        for _ in work:
            error = results.get()
            if error is not None:
                raise error  # noqa: TRY301 - the handler below is for signals as well
    except BaseException:
        with context.signals.signals_ignored():
            context.screen.close()
            context.services.stop_accepting()
            context.commands.cancel()
        raise


def start_airflow(context: CommandContext, *, port: int, practice_port: int, owner: str) -> AirflowApi:
    """Start Airflow and wait until it is healthy and has parsed the present DAG.

    Raises
    ------
    LauncherError
        When it does not become healthy, or cannot import the DAG.
    """
    paths = context.paths
    with context.screen.step("Airflow") as step:
        if port != (wanted := local_airflow.choose_port(port)):
            context.screen.note("Airflow", f"port {port} is taken: using {wanted}")
        step.update("starting (about 40 s)")
        environment = local_airflow.airflow_environment(
            paths,
            port=wanted,
            practice_url=os.environ.get("NUMERAI_PRACTICE_URL") or simulator.address(practice_port),
            scheduled=owner == "up",
        )
        since = now()
        record = local_airflow.start(context.services, paths, environment, owner)

        def is_alive() -> bool:
            return record.alive and context.services.exit_code(record) is None

        address = f"http://{local_airflow.HOST}:{wanted}"
        api = AirflowApi(address, local_airflow.USER, local_airflow.password_file(paths))
        if not api.wait_until_healthy(is_alive, local_airflow.START_SECONDS):
            raise local_airflow.ended_early(paths)
        step.update("reading the DAG")
        api.ensure_pool(context.pool, load_settings().cores, "Cores that the models may use on this machine")
        api.wait_until_parsed(local_airflow.DAG_ID, since, is_alive, PARSE_SECONDS)
        password = local_airflow.password_file(paths).relative_to(paths.root)
        step.done(f"{address}, user {local_airflow.USER}, password in {password}")
    return api


def _start_own_airflow(context: CommandContext, options: Options, cleanup: ExitStack) -> AirflowApi:
    cleanup.callback(_stop_own_services, context)
    practice_port = local_airflow.any_free_port()
    apis: list[AirflowApi] = []

    def images() -> None:
        context.build_images(may_install=options.may_install)
        context.check_data_volume()

    def airflow() -> None:
        api = start_airflow(context, port=options.port, practice_port=practice_port, owner=OWNER)
        # an unfinished run of a killed command must not continue beside this one
        for run_id in api.unfinished_runs(local_airflow.DAG_ID):
            context.screen.note("Airflow", f"ending the unfinished run {run_id}")
            api.fail_run(local_airflow.DAG_ID, run_id, note="unfinished run of a command that was killed")
        apis.append(api)

    def simulate() -> None:
        with context.screen.step("Simulator") as step:
            simulator.start(
                context.services, context.paths, step, port=practice_port, owner=OWNER, calendar=options.calendar
            )

    needs_simulator = options.conf["source"] == "practice" and not os.environ.get("NUMERAI_PRACTICE_URL")
    run_parallel(context, [images, airflow, *([simulate] if needs_simulator else [])])
    return apis[0]


def _use_background_airflow(context: CommandContext, options: Options, background: BackgroundAirflow) -> AirflowApi:
    paths = context.paths
    if str(paths.data) != background.data:
        msg = f"the Airflow of `make up` uses the data in {background.data}, not in {paths.data}"
        raise LauncherError(msg, "Stop it first: make down")
    context.build_images(may_install=options.may_install)
    with context.screen.step("Airflow") as step:
        step.update("using the one of `make up`")
        record = context.services.find(local_airflow.SERVICE)
        api = AirflowApi(background.address, local_airflow.USER, local_airflow.password_file(paths))
        if record is None or not api.wait_until_healthy(lambda: record.alive, 30):
            raise LauncherError("the Airflow of `make up` is unreachable", "Restart it: make down && make up")
        # the DAG that Airflow parsed last has the images' names, which change with their code
        api.wait_until_parsed(local_airflow.DAG_ID, now(), lambda: record.alive, PARSE_SECONDS)
        step.done(f"{background.address}, the one of `make up`")
    if options.conf["source"] == "practice" and context.services.find(simulator.SERVICE) is None:
        with context.screen.step("Simulator") as step:
            simulator.start(
                context.services, paths, step, port=background.practice_port, owner="up", calendar=options.calendar
            )
    return api


def _run_dag(context: CommandContext, options: Options, api: AirflowApi, cleanup: ExitStack, started: float) -> int:
    dag_id = local_airflow.DAG_ID
    run_id = f"make_run__{now():%Y-%m-%dT%H-%M-%S}"
    temporarily_unpaused(api, dag_id, cleanup)
    waiting = api.unfinished_runs(dag_id)
    most = int((api.dag(dag_id) or {}).get("max_active_runs") or 1)
    if len(waiting) >= most:
        context.screen.note(
            "Run", f"waits until one of {', '.join(waiting)} has ended: the DAG has at most {most} active runs"
        )
    over = False

    def end() -> None:
        if not over:
            end_run(context, api, dag_id, run_id, "run")

    cleanup.callback(end)
    conf = {name: value for name, value in options.conf.items() if value is not None}
    api.trigger(dag_id, run_id, conf)
    selected = ", ".join(f"{name.upper()}={format_option(value)}" for name, value in conf.items())
    context.screen.success("Run", f"{run_id} started: {selected}")

    monitor = RunMonitor(api, context.screen, dag_id, run_id, partial(airflow_is_alive, context))
    state = monitor.follow(lambda: local_airflow.ended_early(context.paths))
    over = True
    if state != "success":
        show_failure(context.screen, api, monitor)
        context.screen.print(f"  after {seconds(time.monotonic() - started)}")
        return EXIT_FAILED
    submitted = api.return_value(dag_id, run_id, SUBMITTING_TASK)
    show_predictions(context.screen, api.return_value(dag_id, run_id, SUMMARY_TASK), time.monotonic() - started)
    show_submissions(context.screen, submitted, requested=bool(conf.get("submit")))
    return 0


def end_run(context: CommandContext, api: AirflowApi, dag_id: str, run_id: str, command: str) -> None:
    """End a run of a command that its user has stopped, and in any case remove its containers."""
    with contextlib.suppress(LauncherError):
        api.fail_run(dag_id, run_id, note=f"stopped by the user of make {command}", retry_seconds=STOP_TIMEOUT)
    context.remove_containers(run_id)


def airflow_is_alive(context: CommandContext) -> bool:
    """Whether the Airflow that was started from this checkout still runs."""
    record = context.services.find(local_airflow.SERVICE)
    return record is not None and context.services.exit_code(record) is None


def format_option(value: Any) -> str:
    """Format a value as on the command line."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def temporarily_unpaused(api: AirflowApi, dag_id: str, cleanup: ExitStack) -> None:
    """Unpause a paused DAG until the clean-up."""
    if (api.dag(dag_id) or {}).get("is_paused"):
        api.set_paused(dag_id, paused=False)
        cleanup.callback(_pause_again, api, dag_id)


def _pause_again(api: AirflowApi, dag_id: str) -> None:
    with contextlib.suppress(LauncherError):
        api.set_paused(dag_id, paused=True)


def _stop_own_services(context: CommandContext) -> None:
    stop_services(context, OWNER)


def stop_services(context: CommandContext, owner: str) -> None:
    """Stop the services of a command: builds, Airflow, the simulator, their containers."""
    context.services.stop_accepting()
    context.commands.cancel()
    stopped = context.stop_services(owner)
    removed = context.remove_containers()
    if stopped:
        containers = f", removed {removed} of its containers" if removed else ""
        context.screen.success("Stopped", f"{' and '.join(NAMES[name] for name in stopped)}{containers}")


def release_engine(context: CommandContext) -> None:
    """Stop the engine, if it was started for this command and no other command uses it."""
    report = context.engine.release()
    if report:
        context.screen.success("Stopped", report.removeprefix("stopped "))
