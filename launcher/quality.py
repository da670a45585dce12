"""``make check``, ``make test`` and the long suites: the same on every machine, with what they need set up before."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from launcher.airflow_home import cores
from launcher.browser import ensure_browser
from launcher.console import seconds
from launcher.errors import EXIT_FAILED
from launcher.run import give_back_engine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from launcher.knobs import Knobs
    from launcher.session import Session

SUITES: dict[str, dict[str, str]] = {"test-fuzz": {"FUZZ_INPUTS": "13000"}}
"""Long suites, of which `make test` runs a part: their command, and the environment that makes all of it run."""
TYPED = ("dags", "plugins", "launcher", "practice", "model_images", "benchmarks", "docs", "tests")


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
    """Set up what the tests need, then check the code and run all tests."""
    with ExitStack() as cleanup:
        try:
            cleanup.callback(give_back_engine, session)
            with session.screen.step("Docker engine") as step:
                session.engine.ensure(step, owner="run", may_install=knobs.may_install)
            session.build_images(may_install=knobs.may_install)
            with session.screen.step("Browser") as step:
                log = session.checkout.logs / "apt.log"
                ensure_browser(step, session.commands, log, may_install=knobs.may_install)
            checked = check(session)
            session.screen.note("Tests", "pytest, all of them")
            # one worker more than cores, as much of the time is spent waiting for containers and Airflow
            tested = _run(session, ["pytest", "-n", str(cores() + 1), *shlex.split(knobs.arguments)])
        finally:
            session.signals.shield()
    if not checked and not tested:
        session.screen.tick("All is well", "the code is clean and every test passes")
    return EXIT_FAILED if checked or tested else 0


def test_faults(session: Session, knobs: Knobs) -> int:
    """Play every fault at every stage, ours beside the stock operator's, and as many kills at random as are asked for.

    What comes of them is written into docs/reliability.md. Takes about half an hour, and with 200 kills as much again.
    """
    with ExitStack() as cleanup:
        try:
            cleanup.callback(give_back_engine, session)
            with session.screen.step("Docker engine") as step:
                session.engine.ensure(step, owner="run", may_install=knobs.may_install)
            session.build_images(may_install=knobs.may_install)
            settings = {"FAULTS": "all", "SOAK": str(knobs.soak)}
            words = ["pytest", "-m", "faults", *shlex.split(knobs.arguments)]
            return EXIT_FAILED if _run(session, words, settings) else 0
        finally:
            session.signals.shield()


def suite(session: Session, knobs: Knobs, *, command: str) -> int:
    """Run a long suite to its full length: the tests with the mark that its command names."""
    mark = command.removeprefix("test-")
    session.screen.note("Tests", f"pytest, those marked {mark!r}, all of them")
    failed = _run(session, ["pytest", "-m", mark, *shlex.split(knobs.arguments)], SUITES[command])
    if not failed:
        session.screen.tick("All is well", f"every test marked {mark!r} passes")
    return EXIT_FAILED if failed else 0


def _passes(session: Session, title: str, words: Sequence[str]) -> bool:
    started = time.monotonic()
    if _run(session, words):
        session.screen.fail(title, f"{' '.join(words[:2])} found something (above)")
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
