"""The CPythons on this machine, as material for a stand-in image."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from launcher.checkout import ROOT
from launcher.processes import CommandError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from launcher.processes import Commands

ANSWER_SECONDS = 20
DOWNLOAD_SECONDS = 180.0

# An interpreter counts only if it ran, is CPython, and has what pip and the models' libraries need.
ASK = """
import json, sys
import bz2, ctypes, hashlib, lzma, sqlite3, ssl, zlib
print(json.dumps({
    "version": "%d.%d" % sys.version_info[:2],
    "implementation": sys.implementation.name,
    "prefix": sys.base_prefix,
}))
"""

# The standard library without its tests (they are two thirds of it), without what only a desktop uses, and without
# site-packages, which may hold somebody's own things.
LEFT_OUT = shutil.ignore_patterns(
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
        """Copy what makes it a Python: the program, its libraries, its headers; site-packages stays empty."""
        name = f"python{self.version}"
        (target / "bin").mkdir(parents=True)
        shutil.copy2((self.prefix / "bin" / name).resolve(), target / "bin" / name)
        shutil.copytree(self.prefix / "lib" / name, target / "lib" / name, ignore=LEFT_OUT, symlinks=True)
        (target / "lib" / name / "site-packages").mkdir(exist_ok=True)
        if (self.prefix / "include" / name).is_dir():
            shutil.copytree(self.prefix / "include" / name, target / "include" / name)
        for library in sorted((self.prefix / "lib").glob(f"libpython{self.version}*.so*")):
            shutil.copy2(library, target / "lib" / library.name, follow_symlinks=False)
        # what builds extension modules reads there where Python is installed
        for file in (target / "lib" / name).glob("_sysconfigdata*.py"):
            file.write_text(file.read_text().replace(str(self.prefix), "/usr/local"))


def find_interpreters(version: str) -> list[Interpreter]:
    """All CPythons of a version that can be copied: on PATH, of pyenv, of uv, in /usr/local."""
    found: dict[Path, Interpreter] = {}
    for candidate in _candidates(version):
        interpreter = _ask(candidate, version)
        # Debian spreads its own Python over /usr: that is no folder to copy
        if interpreter is not None and interpreter.prefix != Path("/usr"):
            found.setdefault(interpreter.prefix, interpreter)
    return list(found.values())


def uv_install(commands: Commands, version: str) -> None:
    """Let uv fetch a CPython, where there is a uv and it can."""
    uv = shutil.which("uv") or str(ROOT / ".uv" / "bin" / "uv")
    with contextlib.suppress(CommandError, OSError):
        # a short patience: where GitHub does not answer, it never does
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


def _ask(candidate: Path, version: str) -> Interpreter | None:
    if not os.access(candidate, os.X_OK) or candidate.is_dir():
        return None
    try:
        # -I: whatever this environment sets for its own Python must not colour the answer
        answer = subprocess.run(
            [candidate, "-I", "-c", ASK], capture_output=True, timeout=ANSWER_SECONDS, check=True, text=True
        )
        facts = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    if facts["version"] != version or facts["implementation"] != "cpython":
        return None
    prefix = Path(facts["prefix"])
    return Interpreter(candidate, prefix, version) if (prefix / "bin" / f"python{version}").exists() else None
