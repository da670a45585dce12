"""Finds the CPythons on this machine, of which offline base images are made."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.paths import ROOT
from launcher.processes import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.processes import Commands

ANSWER_SECONDS = 20
DOWNLOAD_SECONDS = 180.0

# An interpreter counts only if it runs, is CPython, and has the modules that pip and the models' libraries need.
PROBE = """
import json, sys
import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "implementation": sys.implementation.name,
    "prefix": sys.base_prefix,
}))
"""

# The standard library without its tests (two thirds of it), without desktop modules, and without site-packages, which
# may contain private packages.
EXCLUDED = shutil.ignore_patterns(
    "__pycache__", "*.a", "*.pyc", "test", "tests", "idlelib", "tkinter", "turtledemo", "site-packages",
    "dist-packages", "EXTERNALLY-MANAGED",
)  # fmt: skip


@dataclass(frozen=True)
class Interpreter:
    """A CPython on this machine.

    Attributes
    ----------
    executable
        The program.
    prefix
        The folder it is installed in.
    version
        Such as 3.12.
    """

    executable: Path
    prefix: Path
    version: str

    def copy_to(self, target: Path) -> None:
        """Copy the program, its libraries and its headers; site-packages stays empty."""
        name = f"python{self.version}"
        (target / "bin").mkdir(parents=True)
        shutil.copy2((self.prefix / "bin" / name).resolve(), target / "bin" / name)
        shutil.copytree(self.prefix / "lib" / name, target / "lib" / name, ignore=EXCLUDED, symlinks=True)
        (target / "lib" / name / "site-packages").mkdir(exist_ok=True)
        if (self.prefix / "include" / name).is_dir():
            shutil.copytree(self.prefix / "include" / name, target / "include" / name)
        for library in sorted((self.prefix / "lib").glob(f"libpython{self.version}*.so*")):
            shutil.copy2(library, target / "lib" / library.name, follow_symlinks=False)
        # builds of extension modules read the installation prefix there
        for file in (target / "lib" / name).glob("_sysconfigdata*.py"):
            file.write_text(file.read_text().replace(str(self.prefix), "/usr/local"))


def find_interpreters(version: str) -> list[Interpreter]:
    """Find all CPythons of a version that can be copied: on PATH, of pyenv, of uv, in /usr/local."""
    found: dict[Path, Interpreter] = {}
    for candidate in _candidates(version):
        interpreter = _probe(candidate, version)
        # Debian's own Python is spread over /usr and cannot be copied as a folder
        if interpreter is not None and interpreter.prefix != Path("/usr"):
            found.setdefault(interpreter.prefix, interpreter)
    return list(found.values())


def install_with_uv(commands: Commands, version: str) -> None:
    """Download a CPython with uv, if possible."""
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    with contextlib.suppress(CommandError, OSError):
        # a short timeout: on machines without access to GitHub it never responds
        commands.run([uv, "python", "install", version], timeout=DOWNLOAD_SECONDS, env={"UV_HTTP_TIMEOUT": "10"})


def _candidates(version: str) -> Iterator[Path]:
    name = f"python{version}"
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        yield from (Path(directory) / program for program in (name, "python3"))
    home = Path.home()
    collections = (
        (Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions", f"{version}.*"),
        (Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python"), f"cpython-{version}.*"),
    )
    for versions, pattern in collections:
        if versions.is_dir():
            # the newest patch release first
            for folder in sorted(versions.glob(pattern), key=lambda path: _numbers(path.name), reverse=True):
                yield folder / "bin" / name
    yield Path("/usr/local/bin") / name


def _numbers(name: str) -> list[int]:
    return [int(part) for part in name.replace("-", ".").split(".") if part.isdigit()]


def _probe(candidate: Path, version: str) -> Interpreter | None:
    if not os.access(candidate, os.X_OK) or candidate.is_dir():
        return None
    try:
        # -I: variables of this environment for its own Python must not change the result
        answer = subprocess.run(
            [candidate, "-I", "-c", PROBE], capture_output=True, timeout=ANSWER_SECONDS, check=True, text=True
        )
        reported = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if reported["version"] != version or reported["implementation"] != "cpython":
        return None
    prefix = Path(reported["prefix"])
    return Interpreter(candidate, prefix, version) if (prefix / "bin" / f"python{version}").exists() else None
