"""``make run``: everything from an empty machine to a run's predictions, and nothing left behind but those."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from launcher import airflow_home, practice_season
from launcher.airflow_api import AirflowApi, now
from launcher.console import seconds
from launcher.errors import EXIT_FAILED, LauncherError
from launcher.follow import Follower
from launcher.outcome import SUBMITTING_TASK, VERDICT_TASK, show_failure, show_predictions, show_submissions

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    from launcher.knobs import Knobs
    from launcher.session import KeptUp, Session

    Work: TypeAlias = Callable[[Session, Knobs, AirflowApi, ExitStack, float], int]

OWNER = "run"
NAMES = {airflow_home.SERVICE: "Airflow", practice_season.SERVICE: "the practice season"}
PARSE_SECONDS = 120.0
# what is left of the 15 s that stopping may take must do for Airflow, containers and engine
STOPPING_PATIENCE = 2.0


def run(session: Session, knobs: Knobs) -> int:
    """Set everything up, run the DAG once, show what came of it, and take everything down again."""
    return with_airflow(session, knobs, _run_dag)


def with_airflow(session: Session, knobs: Knobs, work: Work) -> int:
    """Set everything up, do some work with Airflow, and take everything down again that was not running before."""
    started = time.monotonic()
    with session.only_one(OWNER), ExitStack() as cleanup:
        try:
            cleanup.callback(give_back_engine, session)
            with session.screen.step("Docker engine") as step:
                session.engine.ensure(step, owner=OWNER, may_install=knobs.may_install)
            kept_up = session.kept_up()
            if kept_up is None:
                session.remove_containers()
                api = _start_own_airflow(session, knobs, cleanup)
            else:
                api = _use_kept_up(session, knobs, kept_up)
            return work(session, knobs, api, cleanup, started)
        finally:
            # from here on everything is given back, which a signal must not cut short
            session.signals.shield()


def side_by_side(session: Session, work: Sequence[Callable[[], None]]) -> None:
    """Do several things at once; the first that fails, or a stop, ends the others.

    Raises
    ------
    Exception
        What the first one failed with.
    """
    results: queue.Queue[BaseException | None] = queue.Queue()

    def do(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is raised again in the main thread
            results.put(error)
        else:
            results.put(None)

    for task in work:
        # daemons: what still waits for something that has been stopped must not keep the command from ending
        threading.Thread(target=do, args=(task,), daemon=True).start()
    try:
        for _ in work:
            error = results.get()
            if error is not None:
                raise error  # noqa: TRY301 - the handler below is for a signal just as much
    except BaseException:
        with session.signals.shielded():
            session.screen.close()
            session.services.refuse_new()
            session.commands.cancel()
        raise


def start_airflow(session: Session, *, port: int, practice_port: int, owner: str) -> AirflowApi:
    """Start Airflow and wait until it is healthy and knows today's DAG.

    Raises
    ------
    LauncherError
        When it does not get there.
    """
    checkout = session.checkout
    with session.screen.step("Airflow") as step:
        if port != (wanted := airflow_home.choose_port(port)):
            session.screen.note("Airflow", f"port {port} is taken: using {wanted}")
        step.update("starting (about 40 s)")
        environment = airflow_home.airflow_environment(
            checkout,
            port=wanted,
            practice_url=os.environ.get("NUMERAI_PRACTICE_URL") or practice_season.address(practice_port),
            scheduled=owner == "up",
        )
        since = now()
        record = airflow_home.start(session.services, checkout, environment, owner)

        def is_alive() -> bool:
            return record.alive and session.services.exit_code(record) is None

        address = f"http://{airflow_home.HOST}:{wanted}"
        api = AirflowApi(address, airflow_home.USER, airflow_home.password_file(checkout))
        if not api.wait_until_healthy(is_alive, airflow_home.START_SECONDS):
            raise airflow_home.ended_early(checkout)
        step.update("reading the DAG")
        # a task that wants more slots than there are would wait for ever
        widest = max(spec.pool_slots for spec in session.registry)
        slots = max(airflow_home.cores(), widest)
        api.ensure_pool(session.pool, slots, "Cores the models may use on this machine")
        api.wait_until_parsed(airflow_home.DAG_ID, since, is_alive, PARSE_SECONDS)
        password = airflow_home.password_file(checkout).relative_to(checkout.root)
        step.done(f"{address}, user {airflow_home.USER}, password in {password}")
    return api


def _start_own_airflow(session: Session, knobs: Knobs, cleanup: ExitStack) -> AirflowApi:
    cleanup.callback(_stop_own_services, session)
    practice_port = airflow_home.any_free_port()
    apis: list[AirflowApi] = []

    def images() -> None:
        session.build_images(may_install=knobs.may_install)
        session.check_data_volume()

    def airflow() -> None:
        api = start_airflow(session, port=knobs.port, practice_port=practice_port, owner=OWNER)
        # what an earlier command left unfinished when it was killed must not go on beside this run
        for run_id in api.unfinished_runs(airflow_home.DAG_ID):
            session.screen.note("Airflow", f"ending the run {run_id}, which was left unfinished")
            api.fail_run(airflow_home.DAG_ID, run_id, note="left unfinished by a command that was killed")
        apis.append(api)

    def season() -> None:
        with session.screen.step("Practice season") as step:
            practice_season.start(session.services, session.checkout, step, port=practice_port, owner=OWNER)

    needs_season = knobs.conf["source"] == "practice" and not os.environ.get("NUMERAI_PRACTICE_URL")
    side_by_side(session, [images, airflow, *([season] if needs_season else [])])
    return apis[0]


def _use_kept_up(session: Session, knobs: Knobs, kept_up: KeptUp) -> AirflowApi:
    checkout = session.checkout
    if str(checkout.data) != kept_up.data:
        msg = f"the Airflow of `make up` works with the data in {kept_up.data}, not in {checkout.data}"
        raise LauncherError(msg, "Stop it first: make down")
    session.build_images(may_install=knobs.may_install)
    with session.screen.step("Airflow") as step:
        step.update("using the one of `make up`")
        record = session.services.find(airflow_home.SERVICE)
        api = AirflowApi(kept_up.address, airflow_home.USER, airflow_home.password_file(checkout))
        if record is None or not api.wait_until_healthy(lambda: record.alive, 30):
            raise LauncherError("the Airflow of `make up` does not answer", "Start it anew: make down && make up")
        # the images' names, which change with their code, are in what Airflow read last
        api.wait_until_parsed(airflow_home.DAG_ID, now(), lambda: record.alive, PARSE_SECONDS)
        step.done(f"{kept_up.address}, the one of `make up`")
    if knobs.conf["source"] == "practice" and session.services.find(practice_season.SERVICE) is None:
        with session.screen.step("Practice season") as step:
            practice_season.start(session.services, checkout, step, port=kept_up.practice_port, owner="up")
    return api


def _run_dag(session: Session, knobs: Knobs, api: AirflowApi, cleanup: ExitStack, started: float) -> int:
    dag_id = airflow_home.DAG_ID
    run_id = f"make_run__{now():%Y-%m-%dT%H-%M-%S}"
    unpaused(api, dag_id, cleanup)
    waiting = api.unfinished_runs(dag_id)
    most = int((api.dag(dag_id) or {}).get("max_active_runs") or 1)
    if len(waiting) >= most:
        session.screen.note("Run", f"waits until one of {', '.join(waiting)} has ended: the DAG does {most} at a time")
    over = False

    def end() -> None:
        if not over:
            end_run(session, api, dag_id, run_id, "run")

    cleanup.callback(end)
    conf = {name: value for name, value in knobs.conf.items() if value is not None}
    api.trigger(dag_id, run_id, conf)
    choices = ", ".join(f"{name.upper()}={as_knob(value)}" for name, value in conf.items())
    session.screen.tick("Run", f"{run_id} started: {choices}")

    follower = Follower(api, session.screen, dag_id, run_id, partial(airflow_is_alive, session))
    state = follower.follow(lambda: airflow_home.ended_early(session.checkout))
    over = True
    if state != "success":
        show_failure(session.screen, api, follower)
        session.screen.say(f"  after {seconds(time.monotonic() - started)}")
        return EXIT_FAILED
    submitted = api.return_value(dag_id, run_id, SUBMITTING_TASK)
    show_predictions(session.screen, api.return_value(dag_id, run_id, VERDICT_TASK), time.monotonic() - started)
    show_submissions(session.screen, submitted, asked_for=bool(conf.get("submit")))
    return 0


def end_run(session: Session, api: AirflowApi, dag_id: str, run_id: str, command: str) -> None:
    """End a run that a command began and that its user does not want any more, and its containers in any case."""
    with contextlib.suppress(LauncherError):
        api.fail_run(dag_id, run_id, note=f"stopped by the user of make {command}", patience=STOPPING_PATIENCE)
    session.remove_containers(run_id)


def airflow_is_alive(session: Session) -> bool:
    """Tell whether the Airflow that was started from this checkout still runs."""
    record = session.services.find(airflow_home.SERVICE)
    return record is not None and session.services.exit_code(record) is None


def as_knob(value: Any) -> str:
    """Write a value as the command line takes it."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def unpaused(api: AirflowApi, dag_id: str, cleanup: ExitStack) -> None:
    """Let a DAG run until the cleanup, if it is paused."""
    if (api.dag(dag_id) or {}).get("is_paused"):
        api.set_paused(dag_id, paused=False)
        cleanup.callback(_pause_again, api, dag_id)


def _pause_again(api: AirflowApi, dag_id: str) -> None:
    with contextlib.suppress(LauncherError):
        api.set_paused(dag_id, paused=True)


def _stop_own_services(session: Session) -> None:
    stop_everything_of(session, OWNER)


def stop_everything_of(session: Session, owner: str) -> None:
    """Stop what serves a command: what is being built, Airflow, the practice season, their containers."""
    session.services.refuse_new()
    session.commands.cancel()
    stopped = session.stop_services(owner)
    removed = session.remove_containers()
    if stopped:
        containers = f", removed {removed} of its containers" if removed else ""
        session.screen.tick("Stopped", f"{' and '.join(NAMES[name] for name in stopped)}{containers}")


def give_back_engine(session: Session) -> None:
    """Stop the engine, if it was started for this command and nobody else uses it."""
    said = session.engine.release()
    if said:
        session.screen.tick("Stopped", said.removeprefix("stopped "))
