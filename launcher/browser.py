"""The browser of the browser tests: Chromium, installed from Debian where that is allowed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from launcher import debian
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.console import Step
    from launcher.processes import Commands

# with fonts, so that pages look the same on a machine without any
PACKAGES = ("chromium", "fonts-dejavu-core")


def find_browser() -> str | None:
    """Find a Chromium on PATH."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


def ensure_browser(step: Step, commands: Commands, log: Path, *, may_install: bool) -> None:
    """Install Chromium if there is none; where that is impossible or forbidden, report the tests that are skipped."""
    if find_browser():
        step.done("Chromium is present")
    elif may_install and debian.is_root() and debian.is_debian():
        step.announce("there is none: installing Debian's Chromium")
        try:
            debian.install(commands, PACKAGES, log)
        except LauncherError as error:
            # all other tests can run
            step.done(f"none, so the browser tests will be skipped: {error} (the log: {log})")
        else:
            step.done("Debian's Chromium, installed")
    else:
        step.done(f"none, so the browser tests will be skipped; install {PACKAGES[0]} to run them")
