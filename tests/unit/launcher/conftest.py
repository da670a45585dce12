from __future__ import annotations

from pathlib import Path

import pytest


class Programs:
    """A folder of small fake programs, first on PATH; each call is written down."""

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
    """Nothing of this machine is on PATH but the basic tools."""
    folder, tools = tmp_path / "programs", tmp_path / "tools"
    folder.mkdir()
    tools.mkdir()
    for tool in ("bash", "cat", "touch", "rm", "sleep", "echo", "grep", "head", "env", "awk", "sort", "cut"):
        found = next(Path(place) / tool for place in ("/usr/bin", "/bin") if (Path(place) / tool).exists())
        (tools / tool).symlink_to(found)
    monkeypatch.setenv("PATH", f"{folder}:{tools}")
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    return Programs(folder)
