"""The commands behind ``make``: ``python -m launcher run MODELS=svm`` is ``make run MODELS=svm``."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from launcher.airflow_command import airflow
from launcher.backtest import backtest
from launcher.checkout import Checkout
from launcher.clean import clean
from launcher.console import Screen
from launcher.errors import EXIT_STOPPED, LauncherError, StoppedError
from launcher.knobs import RUNNING, overrides_from_make, overrides_from_words, parse_knobs
from launcher.quality import SUITES, check, suite, test
from launcher.run import give_back_engine, run
from launcher.server import add_user, logs, server, upgrade
from launcher.server import down as server_down
from launcher.server_backup import backup, restore
from launcher.server_settings import known_settings
from launcher.session import Session
from launcher.signals import StopSignals, watch_parent
from launcher.up import down, up
from launcher.worker import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from launcher.knobs import Knobs

PURPOSES = {
    "run": "set everything up, run the pipeline once, show the predictions",
    "backtest": "run past weeks as they would have been then, show what each model would have scored",
    "up": "start Airflow with its web page and keep it running",
    "airflow": "run Airflow's own command line against the Airflow of `up`",
    "down": "stop everything that was started from this checkout",
    "images": "build the model images whose code changed",
    "server": "set up and start the server of .env, by docker-compose",
    "server-down": "stop the server; what it keeps stays",
    "server-logs": "show what the server's services say",
    "server-upgrade": "put the present code in the place of what the server runs",
    "server-backup": "back up the server's database, secrets and results",
    "server-restore": "put the server back as a backup has it",
    "server-user": "make a user of the server, with a fresh password",
    "worker": "let this machine work for the server of another",
    "check": "look at the code: ruff, its formatter, mypy",
    "test": "set everything up, then check the code and run all tests",
    "test-faults": "kill everything that can be killed, at every stage of a run, and write docs/reliability.md",
    "test-fuzz": "read broken files by the thousand",
    "test-server": "the long tests of the server",
    "clean": "remove Airflow's home and the caches",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what a command says; returns the exit code."""
    chosen = _parser().parse_args(arguments)
    screen, signals = Screen(), StopSignals()
    signals.install()
    session = Session(Checkout(), screen, signals)
    try:
        if chosen.from_make:
            watch_parent(is_make=True)
        overrides = overrides_from_make(os.environ.get("MAKEFLAGS", "")) if chosen.from_make else {}
        overrides |= overrides_from_words(chosen.knobs)
        models = session.registry.models if chosen.command in RUNNING else ()
        settings = known_settings(session.checkout) if chosen.command == "server" else ()
        return ACTIONS[chosen.command](
            session, parse_knobs(chosen.command, overrides, models, server_settings=settings)
        )
    except StoppedError:
        screen.close()
        screen.fail("Stopped", "everything that was started has been stopped")
        return EXIT_STOPPED
    except LauncherError as error:
        screen.close()
        screen.say()
        screen.fail(error.step or "Not done", error.message, *error.details)
        return error.exit_code


def _images(session: Session, knobs: Knobs) -> int:
    try:
        with session.screen.step("Docker engine") as step:
            session.engine.ensure(step, owner="run", may_install=knobs.may_install)
        session.build_images(may_install=knobs.may_install)
    finally:
        session.signals.shield()
        give_back_engine(session)
    return 0


ACTIONS: dict[str, Callable[[Session, Knobs], int]] = {
    "run": run,
    "backtest": backtest,
    "up": up,
    "airflow": airflow,
    "down": lambda session, _: down(session),
    "images": _images,
    "server": server,
    "server-down": server_down,
    "server-logs": logs,
    "server-upgrade": upgrade,
    "server-backup": backup,
    "server-restore": restore,
    "server-user": add_user,
    "worker": worker,
    "check": lambda session, _: check(session),
    "test": test,
    **{command: partial(suite, command=command) for command in SUITES},
    "clean": clean,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launcher", description="What `make` does, one command each. `make help` lists the knobs."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in PURPOSES.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("knobs", nargs="*", metavar="NAME=VALUE", help="what can be chosen (see `make help`)")
        command.add_argument("--from-make", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
