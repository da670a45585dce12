"""Finds the CPythons on this machine, of which offline base images are made."""

from __future__ import annotations

import contextlib
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

# an interpreter counts only if it runs, is CPython, and has the modules that pip and the models' libraries need
PROBE = (
    "import bz2, ctypes, hashlib, lzma, sqlite3, ssl, sys, zlib;"
    " print(sys.implementation.name, '%d.%d' % sys.version_info[:2], sys.base_prefix)"
)
# the standard library without its tests (two thirds of it), without desktop modules, and without site-packages, which
# may contain private packages
EXCLUDED = shutil.ignore_patterns(
    "__pycache__", "*.a", "*.pyc", "test", "tests", "idlelib", "tkinter", "turtledemo", "site-packages",
    "dist-packages", "EXTERNALLY-MANAGED",
)  # fmt: skip


@dataclass(frozen=True)
class Interpreter:
    """A CPython on this machine: its program, the folder it is installed in, its version such as 3.12."""

    executable: Path
    prefix: Path
    version: str

    def copy_to(self, target: Path) -> None:
        """Copy the program, its libraries and its headers; site-packages stays empty."""
        name = f"python{self.version}"
        library = target / "lib" / name
        (target / "bin").mkdir(parents=True)
        shutil.copy2((self.prefix / "bin" / name).resolve(), target / "bin" / name)
        shutil.copytree(self.prefix / "lib" / name, library, ignore=EXCLUDED, symlinks=True)
        (library / "site-packages").mkdir(exist_ok=True)
        if (self.prefix / "include" / name).is_dir():
            shutil.copytree(self.prefix / "include" / name, target / "include" / name)
        for shared in sorted((self.prefix / "lib").glob(f"libpython{self.version}*.so*")):
            shutil.copy2(shared, target / "lib" / shared.name, follow_symlinks=False)
        # builds of extension modules read the installation prefix there
        for file in library.glob("_sysconfigdata*.py"):
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
        commands.run([uv, "python", "install", version], timeout=180, env={"UV_HTTP_TIMEOUT": "10"})


def _candidates(version: str) -> Iterator[Path]:
    name, home = f"python{version}", Path.home()
    for directory in os.environ.get("PATH", "").split(os.pathsep):
        yield from (Path(directory) / program for program in (name, "python3"))
    pyenv = Path(os.environ.get("PYENV_ROOT") or home / ".pyenv") / "versions"
    uv = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or home / ".local/share/uv/python")
    for folder in (*_newest_first(pyenv, f"{version}.*"), *_newest_first(uv, f"cpython-{version}.*")):
        yield folder / "bin" / name
    yield Path("/usr/local/bin") / name


def _newest_first(versions: Path, pattern: str) -> list[Path]:
    def numbers(path: Path) -> list[int]:
        return [int(part) for part in path.name.replace("-", ".").split(".") if part.isdigit()]

    return sorted(versions.glob(pattern), key=numbers, reverse=True)


def _probe(candidate: Path, version: str) -> Interpreter | None:
    if not os.access(candidate, os.X_OK) or candidate.is_dir():
        return None
    try:
        # -I: variables of this environment for its own Python must not change the result
        answer = subprocess.run([candidate, "-I", "-c", PROBE], capture_output=True, timeout=20, check=True, text=True)
        implementation, reported, prefix = answer.stdout.strip().split(" ", 2)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    is_copyable = implementation == "cpython" and (Path(prefix) / "bin" / f"python{version}").exists()
    return Interpreter(candidate, Path(prefix), version) if is_copyable and reported == version else None
