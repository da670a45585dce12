"""The browser that the browser tests drive: Chromium, of Debian where it may be installed."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from launcher import debian
from launcher.errors import LauncherError

if TYPE_CHECKING:
    from pathlib import Path

    from launcher.console import Step
    from launcher.processes import Commands

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
# with letters of its own, so that pages look the same on a machine without any
PACKAGES = ("chromium", "fonts-dejavu-core")


def find_browser() -> str | None:
    """Find a Chromium on PATH."""
    return next((found for program in PROGRAMS if (found := shutil.which(program))), None)


def ensure_browser(step: Step, commands: Commands, log: Path, *, may_install: bool) -> None:
    """Install a Chromium where there is none; where that must or can not be, say what will not be tested."""
    if find_browser():
        step.done("Chromium is there")
    elif may_install and debian.is_root() and debian.is_debian():
        step.update("there is none: installing Debian's Chromium")
        try:
            debian.install(commands, PACKAGES, log)
        except LauncherError as error:
            # everything else can be tested all the same
            step.done(f"none, so the browser tests will be skipped: {error} (the log: {log})")
        else:
            step.done("Debian's Chromium, installed")
    else:
        step.done(f"none, so the browser tests will be skipped; install {PACKAGES[0]} to run them")
