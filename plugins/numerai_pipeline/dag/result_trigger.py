"""The trigger that waits, in Airflow's triggerer, while another run makes a result: no pool slot, no worker."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.results import ResultStore

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

POLL_SECONDS = 2.0


class ResultTrigger(BaseTrigger):
    """Fires when a result is finished, when no process makes it any longer, or at a moment.

    Parameters
    ----------
    task_name, key : str
        The result.
    until : str, optional
        The moment at which it fires in any case, ISO 8601.
    """

    def __init__(self, task_name: str, key: str, until: str | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.task_name = task_name
        self.key = key
        self.until = until

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Give the arguments to build it again, here or in another triggerer."""
        return f"{ResultTrigger.__module__}.{ResultTrigger.__qualname__}", {
            "task_name": self.task_name,
            "key": self.key,
            "until": self.until,
        }

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll the data volume, then fire once."""
        store = ResultStore(DataLayout(load_settings().data_dir))
        while not await asyncio.to_thread(self._is_over, store):
            await asyncio.sleep(POLL_SECONDS)
        yield TriggerEvent({"key": self.key})  # type: ignore[no-untyped-call]

    def _is_over(self, store: ResultStore) -> bool:
        if self.until is not None and datetime.now(tz=UTC) >= datetime.fromisoformat(self.until):
            return True
        return store.has(self.task_name, self.key) or not store.is_claimed(self.task_name, self.key)
