"""The commands behind ``make``: ``python -m launcher run MODELS=svm`` is ``make run MODELS=svm``."""

from __future__ import annotations

import argparse
import os
import sys
from functools import partial
from typing import TYPE_CHECKING

from launcher.airflow_command import airflow
from launcher.backtest import backtest
from launcher.clean import clean
from launcher.console import Screen
from launcher.context import CommandContext
from launcher.errors import EXIT_STOPPED, LauncherError, StoppedError
from launcher.options import RUN_COMMANDS, parse_assignments, parse_makeflags, parse_options
from launcher.paths import ProjectPaths
from launcher.run import release_engine, run
from launcher.server import add_user, logs, server, upgrade
from launcher.server import down as server_down
from launcher.server_backup import backup, restore
from launcher.server_settings import known_settings
from launcher.signals import StopSignals, watch_parent
from launcher.test_runner import SUITES, check, run_suite, test
from launcher.up import down, up
from launcher.worker import worker

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from launcher.options import Options

PURPOSES = {
    "run": "set everything up, run the pipeline once, show the predictions",
    "backtest": "run past weeks on the data of their time, show each model's scores",
    "up": "start Airflow with its web page and keep it running",
    "airflow": "run Airflow's own command line against the Airflow of `up`",
    "down": "stop everything started from this checkout",
    "images": "build the model images whose code changed",
    "server": "set up and start the server of .env, by docker-compose",
    "server-down": "stop the server; database, logs and data stay",
    "server-logs": "show the logs of the server's services",
    "server-upgrade": "upgrade the server to the present code",
    "server-backup": "back up the server's database, secrets and results",
    "server-restore": "restore the server from a backup",
    "server-user": "create a user of the server, with a new password",
    "worker": "run tasks of another machine's server on this machine",
    "check": "check the code: ruff, its formatter, mypy, the prose, the documentation",
    "test": "set everything up, then check the code and run all tests",
    "test-faults": "kill each component at every stage of a run, and write docs/results/reliability.md",
    "test-fuzz": "read thousands of broken files",
    "test-server": "the long tests of the server",
    "clean": "remove Airflow's home and the caches",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parsed = _parser().parse_args(arguments)
    screen, signals = Screen(), StopSignals()
    signals.install()
    context = CommandContext(ProjectPaths(), screen, signals)
    try:
        if parsed.from_make:
            watch_parent(is_make=True)
        overrides = parse_makeflags(os.environ.get("MAKEFLAGS", "")) if parsed.from_make else {}
        overrides |= parse_assignments(parsed.options)
        models = context.registry.models if parsed.command in RUN_COMMANDS else ()
        settings = known_settings(context.paths) if parsed.command == "server" else ()
        return ACTIONS[parsed.command](
            context, parse_options(parsed.command, overrides, models, server_settings=settings)
        )
    except StoppedError:
        screen.close()
        screen.error("Stopped", "everything started by this command has been stopped")
        return EXIT_STOPPED
    except LauncherError as error:
        screen.close()
        screen.print()
        screen.error(error.step or "Not done", error.message, *error.details)
        return error.exit_code


def _images(context: CommandContext, options: Options) -> int:
    try:
        with context.screen.step("Docker engine") as step:
            context.engine.ensure(step, owner="run", may_install=options.may_install)
        context.build_images(may_install=options.may_install)
    finally:
        context.signals.ignore_signals()
        release_engine(context)
    return 0


ACTIONS: dict[str, Callable[[CommandContext, Options], int]] = {
    "run": run,
    "backtest": backtest,
    "up": up,
    "airflow": airflow,
    "down": lambda context, _: down(context),
    "images": _images,
    "server": server,
    "server-down": server_down,
    "server-logs": logs,
    "server-upgrade": upgrade,
    "server-backup": backup,
    "server-restore": restore,
    "server-user": add_user,
    "worker": worker,
    "check": lambda context, _: check(context),
    "test": test,
    **{command: partial(run_suite, command=command) for command in SUITES},
    "clean": clean,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m launcher", description="The commands behind `make`. `make help` lists the options."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, purpose in PURPOSES.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        command.add_argument("options", nargs="*", metavar="NAME=VALUE", help="options (see `make help`)")
        command.add_argument("--from-make", action="store_true", help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    sys.exit(main())
