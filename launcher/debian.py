"""Debian's package manager, where the launcher may use it."""

from __future__ import annotations

import os
import platform
import shutil
from contextlib import suppress
from typing import TYPE_CHECKING

from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, tail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from launcher.processes import Commands

APT_SECONDS = 900.0
APT_TIMEOUT = ("-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")


def is_debian() -> bool:
    """Whether this is Debian, Ubuntu or a derivative, with apt-get."""
    with suppress(OSError):
        release = platform.freedesktop_os_release()
        family = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
        return bool({"debian", "ubuntu"} & family) and shutil.which("apt-get") is not None
    return False


def is_root() -> bool:
    """Whether this process runs as root."""
    return os.geteuid() == 0


def install(commands: Commands, packages: Sequence[str], log: Path) -> None:
    """Install Debian packages; the error has the end of apt-get's output."""

    def run(*command: str, check: bool = True) -> None:
        quiet = {"DEBIAN_FRONTEND": "noninteractive"}
        commands.run(command, timeout=APT_SECONDS, log=log, env=quiet, check=check)

    try:
        # an earlier interrupted installation would make every later one fail
        run("dpkg", "--configure", "-a")
        # check=False: an unreachable third-party source is no reason to fail; the installation needs Debian's only
        run("apt-get", "update", "-q", *APT_TIMEOUT, check=False)
        run("apt-get", "install", "-q", "-y", "--no-install-recommends", *packages)
    except CommandError as error:
        msg = f"apt-get could not install {' '.join(packages)}"
        remedy = "Check the network and Debian's sources (apt-get update), then try again."
        details = tail(error.output, 20), f"The full log: {log}", remedy
        raise LauncherError(msg, *details, exit_code=EXIT_UNAVAILABLE) from None
