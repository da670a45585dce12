"""``make up`` and ``make down``: Airflow with its web page, kept running in the background until it is stopped."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from launcher import airflow_home, practice_season
from launcher.run import NAMES, give_back_engine, side_by_side, start_airflow, stop_everything_of
from launcher.session import KeptUp, Session

if TYPE_CHECKING:
    from launcher.airflow_api import AirflowApi
    from launcher.knobs import Knobs

OWNER = "up"
STOP_PATIENCE = 20.0


def up(session: Session, knobs: Knobs) -> int:
    """Start everything and leave it running, or say where it already runs."""
    with session.only_one(OWNER):
        kept_up = session.kept_up()
        if kept_up is not None:
            session.screen.note("Airflow", "is already running")
            _say_where(session, kept_up)
            return 0
        with ExitStack() as cleanup:
            try:
                cleanup.callback(give_back_engine, session)
                with session.screen.step("Docker engine") as step:
                    session.engine.ensure(step, owner="run", may_install=knobs.may_install)
                cleanup.callback(stop_everything_of, session, OWNER)
                kept_up = _start(session, knobs)
                # all of it works: keep it
                session.engine.keep()
                cleanup.pop_all()
            finally:
                session.signals.shield()
        _say_where(session, kept_up)
    return 0


def down(session: Session) -> int:
    """Stop everything that was started from this checkout."""
    session.signals.shield()
    done = []
    if session.stop_running_command(STOP_PATIENCE):
        done.append("the command that was at work")
    session.services.refuse_new()
    for owner in ("up", "run"):
        done += [NAMES[name] for name in session.stop_services(owner)]
    removed = session.remove_containers()
    if removed:
        done.append(f"{removed} containers")
    engine = session.engine.stop()
    if engine:
        done.append(engine.removeprefix("stopped "))
    session.screen.tick("Stopped", ", ".join(done) or "nothing: nothing was running")
    return 0


def _start(session: Session, knobs: Knobs) -> KeptUp:
    practice_port = airflow_home.any_free_port()
    apis: list[AirflowApi] = []

    def images() -> None:
        session.build_images(may_install=knobs.may_install)
        session.check_data_volume()

    def airflow() -> None:
        apis.append(start_airflow(session, port=knobs.port, practice_port=practice_port, owner=OWNER))

    def season() -> None:
        with session.screen.step("Practice season") as step:
            practice_season.start(session.services, session.checkout, step, port=practice_port, owner=OWNER)

    side_by_side(session, [images, airflow, season])
    kept_up = KeptUp(apis[0].port, practice_port, str(session.checkout.data))
    session.keep_up(kept_up)
    return kept_up


def _say_where(session: Session, kept_up: KeptUp) -> None:
    say = session.screen.say
    say()
    say(f"Airflow's page    {kept_up.address}/dags/{airflow_home.DAG_ID}", style="bold")
    say(f"User              {airflow_home.USER}")
    say(f"Password          in {airflow_home.password_file(session.checkout)}")
    say(f"Practice season   {practice_season.standings(kept_up.practice_port)}")
    say(f"Its log           {airflow_home.log_file(session.checkout)}")
    say()
    if airflow_home.schedule() == "off":
        say("The weekly schedule is off; to have it: make down, then NUMERAI_SCHEDULE=sat make up")
    say("`make run` uses this Airflow; `make down` stops it.")
