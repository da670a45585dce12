"""Fits that continue after their run: they were not ready before the round closed, and serve the next rounds.

The container keeps running in its workspace; a marker beside the workspace protects it from the removal of orphans.
The next run that needs the task publishes the fit once it is finished.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from numerai_pipeline.storage.manifests import atomic_path
from numerai_pipeline.storage.results import ResultInfo

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numerai_pipeline.storage.layout import DataLayout

_SUFFIX = ".continues.json"


@dataclass(frozen=True)
class ContinuingFit:
    """A fit that continues after its run.

    Attributes
    ----------
    info : ResultInfo
        Its description, once it is finished.
    until : str
        When its container exceeds its time limit, ISO 8601, UTC.
    """

    info: ResultInfo
    until: str

    @property
    def is_in_time(self) -> bool:
        """Whether its container may still run."""
        return datetime.now(tz=UTC) < datetime.fromisoformat(self.until)

    def write(self, data: DataLayout) -> None:
        """Write the marker."""
        with atomic_path(_marker(data, self.info.task, self.info.key)) as temporary:
            temporary.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")

    def remove(self, data: DataLayout) -> None:
        """Remove the marker."""
        _marker(data, self.info.task, self.info.key).unlink(missing_ok=True)


def continuing_fits(data: DataLayout, task: str) -> Iterator[ContinuingFit]:
    """Yield the continuing fits of a task; unreadable markers are skipped."""
    for file in sorted((data.work_root / task).glob(f"[!.]*{_SUFFIX}")):
        try:
            content = json.loads(file.read_text(encoding="utf-8"))
            yield ContinuingFit(ResultInfo(**content["info"]), str(content["until"]))
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue


def may_continue(data: DataLayout, task: str, key: str) -> bool:
    """Whether a container makes a continuing fit, and is within its time limit."""
    return any(fit.info.key == key and fit.is_in_time for fit in continuing_fits(data, task))


def _marker(data: DataLayout, task: str, key: str) -> Path:
    return data.work(task, key).with_name(key + _SUFFIX)
