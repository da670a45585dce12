"""The last valid version of each stable, for the tasks of runs that have begun when ``stables.yaml`` gets a mistake."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

_FOLDER = ".stables"


def read_valid_stables(data_dir: Path) -> dict[str, Any]:
    """Read all: stable → its entry of the file; unreadable ones are left out."""
    found = {}
    for file in sorted((data_dir / _FOLDER).glob("[!.]*.json")):
        try:
            found[file.stem] = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
    return found


def write_valid_stable(data_dir: Path, name: str, content: dict[str, Any], listed: Collection[str]) -> None:
    """Write a stable's entry, and remove the stables that are not listed any more."""
    folder = data_dir / _FOLDER
    with atomic_path(folder / f"{name}.json") as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for file in folder.glob("[!.]*.json"):
        if file.stem not in listed:
            file.unlink(missing_ok=True)
