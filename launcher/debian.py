"""Debian's package manager, where the launcher may use it."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.processes import CommandError, tail

if TYPE_CHECKING:
    from collections.abc import Sequence

    from launcher.processes import Commands

OS_RELEASE = Path("/etc/os-release")
APT_SECONDS = 900.0
APT_TIMEOUT = ("-o", "Acquire::http::Timeout=20", "-o", "Acquire::https::Timeout=20")


def is_debian(os_release: Path = OS_RELEASE) -> bool:
    """Whether this is Debian, Ubuntu or a derivative, with apt-get."""
    try:
        fields = dict(line.split("=", 1) for line in os_release.read_text().splitlines() if "=" in line)
    except OSError:
        return False
    family = f"{fields.get('ID', '')} {fields.get('ID_LIKE', '')}".replace('"', "").lower().split()
    return bool({"debian", "ubuntu"}.intersection(family)) and shutil.which("apt-get") is not None


def is_root() -> bool:
    """Whether this process runs as root."""
    return os.geteuid() == 0


def install(commands: Commands, packages: Sequence[str], log: Path) -> None:
    """Install Debian packages.

    Raises
    ------
    LauncherError
        With the end of apt-get's output.
    """
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    try:
        # an earlier interrupted installation would make every later one fail
        commands.run(["dpkg", "--configure", "-a"], timeout=APT_SECONDS, log=log, env=quiet)
        # check=False: an unreachable third-party source is no reason to fail; the installation needs Debian's only
        commands.run(["apt-get", "update", "-q", *APT_TIMEOUT], timeout=APT_SECONDS, log=log, env=quiet, check=False)
        commands.run(
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages],
            timeout=APT_SECONDS,
            log=log,
            env=quiet,
        )
    except CommandError as error:
        msg = f"apt-get could not install {' '.join(packages)}"
        raise LauncherError(msg, tail(error.output, 20), f"The full log: {log}", exit_code=EXIT_UNAVAILABLE) from None
