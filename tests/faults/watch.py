"""Who watches the containers: which there were, and how many of one task at the same time."""

from __future__ import annotations

import threading
from collections import defaultdict

from tests.faults.engine import SILENT, OwnEngine

Key = tuple[str, str]


class Watch:
    """Looks at an engine's containers several times a second, whether it answers or not."""

    def __init__(self, engine: OwnEngine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.seen: dict[Key, set[str]] = defaultdict(set)
        self.most_at_once: dict[Key, int] = defaultdict(int)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def running(self, run: str, task: str) -> list[str]:
        """Ids of a task's containers that work at the moment."""
        try:
            found = self._engine.containers()
        except SILENT:
            return []
        return [each["Id"] for each in found if _key(each) == (run, task) and each["State"] == "running"]

    def _look(self) -> None:
        while not self._stop.wait(0.15):
            try:
                found = self._engine.containers()
            except SILENT:
                continue
            working: dict[Key, int] = defaultdict(int)
            for container in found:
                key = _key(container)
                self.seen[key].add(container["Id"])
                working[key] += container["State"] == "running"
            for key, count in working.items():
                self.most_at_once[key] = max(self.most_at_once[key], count)


def _key(container: dict[str, str]) -> Key:
    labels: dict[str, str] = dict(container["Labels"])  # type: ignore[arg-type]
    # the stock operator's containers know nothing of their run, of which there is one at a time
    return labels.get("numerai.run", "stock"), labels.get("numerai.task", "stock")
