"""``make check``, ``make test`` and the long suites: the same on every machine, with what they need set up before."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import psutil

from launcher.airflow_home import cores
from launcher.browser import ensure_browser
from launcher.compose import ensure_program
from launcher.console import seconds
from launcher.errors import EXIT_FAILED
from launcher.processes import CommandError
from launcher.run import give_back_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from launcher.knobs import Knobs
    from launcher.session import Session

SUITES: dict[str, dict[str, str]] = {
    "test-faults": {"FAULTS": "all"},
    "test-fuzz": {"FUZZ_INPUTS": "13000"},
    "test-server": {},
}
"""Long suites, of which `make test` runs a part or none: their command, and what makes all of it run."""
MEMORY_OF_A_WORKER = 4 << 30
"""Bytes that a worker of the tests may come to, its containers included."""
TYPED = ("dags", "plugins", "launcher", "practice", "server", "model_images", "benchmarks", "docs", "tests")


def check(session: Session) -> int:
    """Look at the code with ruff, its formatter and mypy; all of them, so that one look shows everything."""
    typed = [name for name in TYPED if any((session.checkout.root / name).rglob("*.py"))]
    checks = {
        "Ruff": ["ruff", "check"],
        "Format": ["ruff", "format", "--check"],
        "Types": ["mypy", *typed],
    }
    failed = [title for title, words in checks.items() if not _passes(session, title, words)]
    return EXIT_FAILED if failed else 0


def test(session: Session, knobs: Knobs) -> int:
    """Set up what the tests need, then check the code and run all tests but the long ones of the server."""

    def play() -> int:
        with session.screen.step("Browser") as step:
            ensure_browser(step, session.commands, session.checkout.logs / "apt.log", may_install=knobs.may_install)
        session.screen.note("Tests", "pytest, all but the long ones of the server (make test-server)")
        words = ["pytest", "-n", str(_workers()), "-m", "not server", *shlex.split(knobs.arguments)]
        return _run(session, words)

    # what the code looks like takes a core, which images that are downloaded and installed leave idle
    with ThreadPoolExecutor(1) as beside:
        checked = beside.submit(check, session)
        try:
            failed = _with_containers(session, knobs, play)
        except BaseException:
            session.commands.cancel()
            raise
    if not (failed or checked.result()):
        session.screen.tick("All is well", "the code is clean and every test passes")
        return 0
    return EXIT_FAILED


def _workers() -> int:
    """Choose how many tests run side by side: one more than cores, as they wait for containers and Airflow."""
    return max(1, min(cores() + 1, psutil.virtual_memory().total // MEMORY_OF_A_WORKER))


def suite(session: Session, knobs: Knobs, *, command: str) -> int:
    """Run a long suite to its full length: the tests with the mark that its command names."""
    mark = command.removeprefix("test-")

    def play() -> int:
        session.screen.note("Tests", f"pytest, those marked {mark!r}, all of them")
        more = {**SUITES[command], **({"SOAK": str(knobs.soak)} if knobs.soak else {})}
        return _run(session, ["pytest", "-m", mark, *shlex.split(knobs.arguments)], more)

    failed = _with_containers(session, knobs, play)
    if not failed:
        session.screen.tick("All is well", f"every test marked {mark!r} passes")
    return EXIT_FAILED if failed else 0


def _with_containers(session: Session, knobs: Knobs, play: Callable[[], int]) -> int:
    """Play tests where there are an engine, docker-compose and the images; gives back what was started."""
    with ExitStack() as cleanup:
        try:
            cleanup.callback(give_back_engine, session)
            with session.screen.step("Docker engine") as step:
                session.engine.ensure(step, owner="run", may_install=knobs.may_install)
            with session.screen.step("Compose") as step:
                log = session.checkout.logs / "apt.log"
                step.done(" ".join(ensure_program(session.commands, step, log, may_install=knobs.may_install)))
            session.build_images(may_install=knobs.may_install)
            return play()
        finally:
            session.signals.shield()


def _passes(session: Session, title: str, words: Sequence[str]) -> bool:
    started = time.monotonic()
    colours = {"FORCE_COLOR": "1"} if session.screen.live else {}
    try:
        session.commands.run([sys.executable, "-m", *words], cwd=session.checkout.root, env=colours)
    except CommandError as error:
        if error.code is None or error.code < 0:  # ended with everything else: it found nothing
            raise
        session.screen.fail(title, f"{' '.join(words[:2])} found something:", error.output)
        return False
    session.screen.tick(title, f"nothing found ({seconds(time.monotonic() - started)})")
    return True


def _run(session: Session, words: Sequence[str], more: Mapping[str, str] | None = None) -> int:
    """Run a tool of the environment in the foreground, with values for unset variables; returns its exit code.

    It stays in our process group: on Ctrl-C a test run tidies up by itself, and we wait for it to do so.
    """
    environment = {
        name: value for name, value in os.environ.items() if name not in {"MAKEFLAGS", "MAKELEVEL", "MFLAGS"}
    }
    environment = {**(more or {}), **environment}
    tool = subprocess.Popen([sys.executable, "-m", *words], cwd=session.checkout.root, env=environment)
    try:
        return tool.wait()
    except BaseException:
        with session.signals.shielded():
            tool.terminate()
            try:
                tool.wait(timeout=10)
            except subprocess.TimeoutExpired:
                tool.kill()
        raise
