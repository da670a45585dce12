from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from launcher.paths import ROOT


class Programs:
    """A folder of small fake programs, first on PATH; each call is recorded."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        self.calls_file.touch()

    def add(self, name: str, script: str = "") -> Path:
        path = self.folder / name
        path.write_text(f'#!/bin/bash\necho "{name} $*" >> {self.calls_file}\n{script}\n')
        path.chmod(0o755)
        return path

    def calls(self, of: str = "") -> list[str]:
        return [line for line in self.calls_file.read_text().splitlines() if line.startswith(of)]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Reduce PATH to basic tools and fake programs."""
    folder, tools = tmp_path / "programs", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for tool in ("bash", "cat", "touch", "rm", "sleep", "echo", "grep", "head", "env", "awk", "sort", "cut"):
        found = next(Path(prefix) / tool for prefix in ("/usr/bin", "/bin") if (Path(prefix) / tool).exists())
        (tools / tool).symlink_to(found)
    monkeypatch.setenv("PATH", f"{folder}:{tools}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    return Programs(folder)


# as uv does: it skips programs that do not run
FIND = 'for folder in ${PATH//:/ }; do "$folder/python$4" 2>/dev/null && echo "$folder/python$4" && exit; done; exit 2'


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
            python) [[ $2 == find ]] && {{ {FIND}; }} ;;
            sync) mkdir -p .venv/bin && ln -sf {python} .venv/bin/python ;;
        esac""",
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.delenv("UV_PYTHON_INSTALL_DIR", raising=False)
    monkeypatch.delenv("NO_INSTALL", raising=False)
    return root


def run_environment(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run environment.sh of a checkout."""
    return subprocess.run(
        [checkout / "launcher" / "environment.sh", *arguments], capture_output=True, text=True, check=False
    )


def add_old_python(programs: Programs, python: str, *, user: int = 1000, debian: bool = False) -> None:
    """Simulate a machine with one Python, which is not one of those that the pipeline needs."""
    (programs.folder / "id").unlink()
    programs.add("id", f"echo {user}")
    (programs.folder.parent / "tools" / "grep").unlink()
    programs.add("grep", f"exit {int(not debian)}")
    programs.add("apt-get")
    programs.add("dpkg")
    programs.add("python3", f'[[ $1 == --version ]] && echo "Python {python}"; exit 0')
