from __future__ import annotations

from pathlib import Path

import pytest


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
