"""``make check``, ``make test`` and the long suites, with the set-up of their requirements."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from launcher.browser import ensure_browser
from launcher.compose import ensure_program
from launcher.console import seconds
from launcher.errors import EXIT_FAILED
from launcher.processes import CommandError
from numerai_pipeline.core.settings import machine_cores

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from launcher.context import CommandContext
    from launcher.options import FaultOptions, Options, ProgramOptions

SUITES: dict[str, dict[str, str]] = {
    "test-faults": {"FAULTS": "all"},
    "test-fuzz": {"FUZZ_INPUTS": "13000"},
    "test-server": {},
}
"""Long suites, of which `make test` runs a part or none: command → the environment that selects all of it."""
MEMORY_OF_A_WORKER = 4 << 30
"""Bytes that a worker of the tests may use, its containers included."""
MODULE = (sys.executable, "-m")
LINT_IMPORTS = (Path(sys.executable).with_name("lint-imports"), "--no-logo", "--no-cache")
TYPED = ("dags", "plugins", "launcher", "practice", "server", "model_images", "benchmarks", "docs", "tests")


def check(context: CommandContext, _: Options | None = None) -> int:
    """Check the code with ruff, its formatter, mypy and more; all of them run, so that all findings are reported."""
    typed = [name for name in TYPED if any((context.paths.root / name).rglob("*.py"))]
    checks: dict[str, Sequence[str | Path]] = {
        "Ruff": [*MODULE, "ruff", "check"],
        "Format": [*MODULE, "ruff", "format", "--check"],
        "Types": [*MODULE, "mypy", *typed],
        "Packages": LINT_IMPORTS,
        "Documentation": [*MODULE, "mkdocs", "build", "--strict"],  # with --quiet, a warning would be no failure
        "Prose": [sys.executable, Path(__file__).with_name("prose.py"), context.paths.root],
    }
    results = [_passes(context, title, command) for title, command in checks.items()]
    return 0 if all(results) else EXIT_FAILED


def test(context: CommandContext, options: ProgramOptions) -> int:
    """Set up the tests' requirements, then check the code and run all tests except the long ones of the server."""

    def run_tests() -> int:
        with context.screen.step("Browser") as step:
            ensure_browser(step, context.commands, context.paths.logs / "apt.log", may_install=options.may_install)
        context.screen.note("Tests", "pytest, without the long ones of the server (make test-server)")
        return _pytest(context, ["-n", str(_workers()), "-m", "not server", *shlex.split(options.arguments)])

    # the checks use one core, which is idle while images are downloaded and installed
    with ThreadPoolExecutor(1) as beside:
        checked = beside.submit(check, context)
        try:
            failed = _with_containers(context, options, run_tests)
        except BaseException:
            context.commands.cancel()
            raise
    if not (failed or checked.result()):
        context.screen.success("Passed", "the code is clean and every test passes")
        return 0
    return EXIT_FAILED


def _workers() -> int:
    """Choose the number of parallel tests: one more than cores, as they wait for containers and Airflow."""
    return max(1, min(machine_cores() + 1, psutil.virtual_memory().total // MEMORY_OF_A_WORKER))


def run_suite(context: CommandContext, options: ProgramOptions | FaultOptions, *, command: str) -> int:
    """Run all of a long suite: the tests with the mark of its command."""
    mark, soak = command.removeprefix("test-"), getattr(options, "soak", 0)

    def run_tests() -> int:
        context.screen.note("Tests", f"pytest, all tests marked {mark!r}")
        more = {**SUITES[command], **({"SOAK": str(soak)} if soak else {})}
        return _pytest(context, ["-m", mark, *shlex.split(options.arguments)], more)

    failed = _with_containers(context, options, run_tests)
    if not failed:
        context.screen.success("Passed", f"every test marked {mark!r} passes")
    return EXIT_FAILED if failed else 0


def _with_containers(context: CommandContext, options: Options, run_tests: Callable[[], int]) -> int:
    """Run tests with an engine, docker-compose and the images."""
    with context.lifecycle("test", options, exclusive=False):
        ensure_program(context, may_install=options.may_install)
        context.build_images(options)
        return run_tests()


def _passes(context: CommandContext, title: str, command: Sequence[str | Path]) -> bool:
    started = time.monotonic()
    environment = {
        "PYTHONPATH": str(context.paths.plugins),
        "NO_MKDOCS_2_WARNING": "1",  # an announcement of the theme, which would precede the findings
        **({"FORCE_COLOR": "1"} if context.screen.live else {}),
    }
    try:
        context.commands.run(command, cwd=context.paths.root, env=environment)
    except CommandError as error:
        if error.code is None or error.code < 0:  # ended by a signal, without a result
            raise
        context.screen.error(title, "has findings:", error.output)
        return False
    context.screen.success(title, f"no findings ({seconds(time.monotonic() - started)})")
    return True


def _pytest(context: CommandContext, arguments: Sequence[str], more: Mapping[str, str] | None = None) -> int:
    """Run pytest in the foreground, with values for unset variables; returns its exit code.

    It stays in this process group: on Ctrl-C a test run cleans up itself, and the launcher waits for its end.
    """
    environment = {name: text for name, text in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}}
    environment = {**(more or {}), **environment}
    tool = subprocess.Popen([*MODULE, "pytest", *arguments], cwd=context.paths.root, env=environment)
    try:
        return tool.wait()
    except BaseException:
        with context.signals.signals_ignored():
            tool.terminate()
            try:
                tool.wait(timeout=10)
            except subprocess.TimeoutExpired:
                tool.kill()
        raise
