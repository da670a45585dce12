"""Monitors the containers of an engine: their ids, and how many of one task run at the same time."""

from __future__ import annotations

import threading
from collections import defaultdict

from tests.faults.engine import UNREACHABLE_ERRORS, EngineProcess

Key = tuple[str, str]


class ContainerMonitor:
    """Lists an engine's containers several times a second, also while it is unreachable at times."""

    def __init__(self, engine: EngineProcess) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._poll, daemon=True)
        self.seen: dict[Key, set[str]] = defaultdict(set)
        self.most_at_once: dict[Key, int] = defaultdict(int)

    def __enter__(self) -> ContainerMonitor:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def running(self, run: str, task: str) -> list[str]:
        """Ids of a task's running containers."""
        try:
            found = self._engine.containers()
        except UNREACHABLE_ERRORS:
            return []
        return [each["Id"] for each in found if _key(each) == (run, task) and each["State"] == "running"]

    def _poll(self) -> None:
        while not self._stop.wait(0.15):
            try:
                found = self._engine.containers()
            except UNREACHABLE_ERRORS:
                continue
            running: dict[Key, int] = defaultdict(int)
            for container in found:
                key = _key(container)
                self.seen[key].add(container["Id"])
                running[key] += container["State"] == "running"
            for key, count in running.items():
                self.most_at_once[key] = max(self.most_at_once[key], count)


def _key(container: dict[str, str]) -> Key:
    labels: dict[str, str] = dict(container["Labels"])  # type: ignore[arg-type]
    # the stock operator's containers have no label of their run; there is one run at a time
    return labels.get("numerai.run", "stock"), labels.get("numerai.task", "stock")
