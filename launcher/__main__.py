"""The commands behind ``make``: ``python -m launcher run MODELS=svm`` is ``make run MODELS=svm``."""

from __future__ import annotations

import os
import re
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from launcher.backtest import backtest
from launcher.clean import clean
from launcher.console import Screen
from launcher.context import CommandContext
from launcher.errors import EXIT_STOPPED, EXIT_USAGE, LauncherError, StoppedError
from launcher.options import parse_assignments, parse_makeflags, parse_options
from launcher.paths import ROOT, ProjectPaths
from launcher.run import run
from launcher.server import add_user, logs, server, upgrade
from launcher.server import down as server_down
from launcher.server_backup import backup, restore
from launcher.server_settings import known_settings
from launcher.signals import StopSignals, watch_parent
from launcher.test_runner import SUITES, check, run_suite, test
from launcher.up import airflow, down, up
from launcher.worker import worker
from numerai_pipeline.core.errors import PipelineError
from numerai_pipeline.storage.disk import translate_disk_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from launcher.options import Options


def images(context: CommandContext, options: Options) -> int:
    """Build the model images whose inputs changed."""
    with context.lifecycle("images", options, exclusive=False):
        context.build_images(options)
    return 0


ACTIONS: dict[str, Callable[[CommandContext, Any], int]] = {
    "run": run,
    "backtest": backtest,
    "up": up,
    "airflow": airflow,
    "down": down,
    "images": images,
    "server": server,
    "server-down": server_down,
    "server-logs": logs,
    "server-upgrade": upgrade,
    "server-backup": backup,
    "server-restore": restore,
    "server-user": add_user,
    "worker": worker,
    "check": check,
    "test": test,
    **{command: partial(run_suite, command=command) for command in SUITES},
    "clean": clean,
}


def main(arguments: Sequence[str]) -> int:
    """Run a command with its options; returns the exit code. Without a command, print the help text of make."""
    from_make, words = "--from-make" in arguments, [word for word in arguments if word != "--from-make"]
    if not words or words[0] not in ACTIONS or {"-h", "--help"}.intersection(words):
        print("\n".join(re.findall(r"^## ?(.*)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)))
        return 0 if {"-h", "--help"}.intersection(words) else EXIT_USAGE
    command, *assignments = words
    screen, signals = Screen(), StopSignals()
    signals.install()
    context = CommandContext(ProjectPaths(), screen, signals)
    try:
        if from_make:
            watch_parent(is_make=True)
        overrides = parse_makeflags(os.environ.get("MAKEFLAGS", "")) if from_make else {}
        overrides |= parse_assignments(assignments)
        settings = known_settings(context.paths) if command == "server" else ()
        models = context.registry.models if command in {"run", "backtest"} else ()
        options = parse_options(command, overrides, models, server_settings=settings)
        with translate_disk_errors(context.paths.root):
            return ACTIONS[command](context, options)
    except StoppedError:
        screen.close()
        screen.error("Stopped", "everything started by this command has been stopped")
        return EXIT_STOPPED
    except (LauncherError, PipelineError) as error:
        return report(screen, error if isinstance(error, LauncherError) else LauncherError(str(error)))


def report(screen: Screen, error: LauncherError) -> int:
    """Print an error and its remedy; returns the exit code."""
    screen.close()
    screen.print()
    screen.error(error.step or "Not done", error.message, *error.details)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
