from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from rich.console import Console

from launcher import base_images
from launcher.base_images import BaseImages
from launcher.console import Screen
from launcher.docker_cli import Docker
from launcher.errors import EXIT_UNAVAILABLE, LauncherError
from launcher.offline_images import interpreters
from launcher.offline_images.interpreters import find_interpreters
from launcher.paths import ProjectPaths
from launcher.processes import Commands

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs


def ensure(tmp_path: Path, version: str) -> str:
    bases = BaseImages(Docker(Commands()), ProjectPaths(tmp_path), may_install=False)
    screen = Screen(Console(record=True, width=200, force_terminal=False))
    with screen.step("Base image") as step:
        bases.ensure({version: ["classic", "networks"]}, step)
    return screen.console.export_text()


def test_base_image_present_is_used(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker")
    assert "python:3.12-slim-bookworm is present" in ensure(tmp_path, "3.12")
    assert not programs.calls("docker pull")


def test_base_image_missing_is_pulled(programs: Programs, tmp_path: Path) -> None:
    programs.add("docker", "[[ $1 == pull ]] && echo '3.12-slim-bookworm: Pulling from library/python'")
    assert "python:3.12-slim-bookworm pulled" in ensure(tmp_path, "3.12")


def test_base_image_with_unreachable_registry_fails_soon(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base_images, "REGISTRY_ANSWERS_SECONDS", 0.2)
    monkeypatch.setattr(interpreters, "_candidates", lambda _version: iter(()))
    programs.add("docker", "[[ $1 == pull ]] && sleep 600; exit 1")
    with pytest.raises(LauncherError) as raised:
        ensure(tmp_path, "3.12")
    report = "\n".join([raised.value.message, *raised.value.details])
    assert raised.value.exit_code == EXIT_UNAVAILABLE
    assert "these images cannot be built: classic, networks" in report
    assert "No container registry is reachable" in report
    assert "no CPython 3.12 on this machine" in report


def add_python(prefix: Path, version: str, *, works: bool = True) -> Path:
    """Make files that look like an installed CPython."""
    library = prefix / "lib" / f"python{version}"
    for folder in ("test", "json/tests", "site-packages/secret", "__pycache__"):
        (library / folder).mkdir(parents=True)
    (library / "os.py").touch()
    (library / "EXTERNALLY-MANAGED").touch()
    (library / "_sysconfigdata_linux.py").write_text(f"LIBDIR = '{prefix}/lib'\n")
    (prefix / "lib" / f"libpython{version}.so.1.0").touch()
    (prefix / "include" / f"python{version}").mkdir(parents=True)
    program = prefix / "bin" / f"python{version}"
    program.parent.mkdir()
    facts = f"cpython {version} {prefix}"
    program.write_text(
        f"#!/bin/bash\necho '{facts}'\n" if works else "#!/bin/bash\necho command not found >&2; exit 127\n"
    )
    program.chmod(0o755)
    return program


def test_find_interpreters_lists_only_those_which_run(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    programs.add("python3.12", "echo 'pyenv: python3.12: command not found' >&2; exit 127")
    for prefix in ("pyenv/versions/3.12.1", "pyenv/versions/3.12.10", "uv/cpython-3.12.4-linux"):
        add_python(tmp_path / prefix, "3.12")
    add_python(tmp_path / "pyenv/versions/3.12.11", "3.12", works=False)
    found = [
        str(found.prefix.relative_to(tmp_path))
        for found in find_interpreters("3.12")
        if found.prefix.is_relative_to(tmp_path)
    ]
    assert found == ["pyenv/versions/3.12.10", "pyenv/versions/3.12.1", "uv/cpython-3.12.4-linux"]


def test_interpreter_copy_excludes_private_packages_and_tests(
    programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))
    add_python(tmp_path / "pyenv/versions/3.9.18", "3.9")
    [interpreter] = [found for found in find_interpreters("3.9") if found.prefix.is_relative_to(tmp_path)]
    interpreter.copy_to(tmp_path / "copy")
    copied = {str(path.relative_to(tmp_path / "copy")) for path in (tmp_path / "copy").rglob("*")}
    assert {"bin/python3.9", "lib/python3.9/os.py", "lib/libpython3.9.so.1.0", "include/python3.9"} <= copied
    assert not [
        path for path in copied if "test" in path or "secret" in path or "EXTERNALLY" in path or "cache" in path
    ]
    assert (tmp_path / "copy/lib/python3.9/_sysconfigdata_linux.py").read_text() == "LIBDIR = '/usr/local/lib'\n"
