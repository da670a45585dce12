from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from launcher.paths import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.launcher.conftest import Programs

GOOD = 'if [[ $1 == -c ]]; then echo "3.12"; fi'
SHIM = "echo 'pyenv: command not found' >&2; exit 127"


@pytest.fixture
def checkout(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout on a simulated machine: its uv makes environments of one small script."""
    root = tmp_path / "checkout"
    (root / "launcher").mkdir(parents=True)
    shutil.copy(ROOT / "launcher" / "environment.sh", root / "launcher")
    (root / "pyproject.toml").touch()
    (root / "uv.lock").write_text("1\n")
    for tool in ("dirname", "mkdir", "cksum", "tr", "flock", "tail", "id", "timeout", "python3"):
        (programs.folder / tool).symlink_to(shutil.which(tool, path="/usr/bin:/bin") or "/usr/bin/false")
    (programs.folder / "python3").unlink()
    python = root / "python"
    python.write_text(f'#!/bin/bash\necho "launcher $*" >> {programs.calls_file}\necho Python 3.12.9\n')
    python.chmod(0o755)
    (programs.folder / "ln").symlink_to("/bin/ln")
    programs.add(
        "uv",
        f"""
        case "$1" in
            --version) echo "uv 0.13.9" ;;
            sync) mkdir -p .venv/bin && ln -sf {python} .venv/bin/python ;;
        esac""",
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("UV_PYTHON_INSTALL_DIR", raising=False)
    monkeypatch.delenv("NO_INSTALL", raising=False)
    return root


def call(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [checkout / "launcher" / "environment.sh", *arguments], capture_output=True, text=True, check=False
    )


def test_environment_skips_a_shim_which_does_not_run(checkout: Path, programs: Programs, tmp_path: Path) -> None:
    programs.add("python3.12", SHIM)
    real = tmp_path / "pyenv" / "versions" / "3.12.9" / "bin"
    real.mkdir(parents=True)
    programs.add("python-real", GOOD).rename(real / "python3.12")
    answer = call(checkout, "local", "run", "MODELS=a b")
    assert answer.returncode == 0, answer.stderr
    [sync] = programs.calls("uv sync")
    assert f"--python {real}/python3.12" in sync
    assert "--frozen" in sync
    assert programs.calls("launcher -m launcher run MODELS=a b")


def test_environment_is_synced_only_when_the_lock_changed(checkout: Path, programs: Programs) -> None:
    programs.add("python3.12", GOOD)
    for _ in range(2):
        assert call(checkout, "local").returncode == 0
    assert len(programs.calls("uv sync")) == 1
    (checkout / "uv.lock").write_text("2\n")
    call(checkout, "local")
    assert len(programs.calls("uv sync")) == 2
    call(checkout, "dev")
    assert "--group dev" in programs.calls("uv sync")[-1]


def test_environment_for_development_keeps_its_tools(checkout: Path, programs: Programs) -> None:
    programs.add("python3.12", GOOD)
    call(checkout, "dev")
    (checkout / ".venv" / "bin" / "pytest").symlink_to(checkout / "python")
    call(checkout, "local")
    assert len(programs.calls("uv sync")) == 1


def test_environment_failed_installation_prints_the_end_of_its_log(checkout: Path, programs: Programs) -> None:
    programs.add("python3.12", GOOD)
    programs.add("uv", 'if [[ $1 == --version ]]; then echo "uv 0.13.9"; else echo "no such package" >&2; exit 2; fi')
    answer = call(checkout, "local")
    assert answer.returncode == 69
    assert "no such package" in answer.stderr
    assert ".cache/environment.log" in answer.stderr


def test_environment_skips_an_old_uv(checkout: Path, programs: Programs, tmp_path: Path) -> None:
    programs.add("python3.12", GOOD)
    recent = (programs.folder / "uv").rename(programs.folder / "kept")
    programs.add("uv", 'echo "uv 0.4.0"')
    private = checkout / ".uv" / "bin"
    private.mkdir(parents=True)
    recent.rename(private / "uv")
    assert call(checkout, "local").returncode == 0
    assert programs.calls("uv sync")
