"""Where the leaderboard is, in Airflow's words: its application, its place in the menu, and the links that lead to it.

Airflow reads its plugins in each of its parts, and only the API server serves pages: the application is made with the
first request for it. Addresses are relative to Airflow's own, so they hold wherever it is served.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey

PREFIX = "/numerai/leaderboard"
ADDRESS = f"{PREFIX.removeprefix('/')}/"


@cache
def _app() -> Any:
    from numerai_pipeline.leaderboard.app import create_app

    return create_app()


async def application(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """Serve the leaderboard (an ASGI application)."""
    await _app()(scope, receive, send)


FASTAPI_APP = {"app": application, "url_prefix": PREFIX, "name": "Numerai leaderboard"}
EXTERNAL_VIEWS = (
    {"name": "Leaderboard", "href": ADDRESS, "destination": "nav", "category": "browse", "url_route": "leaderboard"},
    {
        "name": "Leaderboard",
        "href": f"{ADDRESS}?dag={{DAG_ID}}&dag_run={{RUN_ID}}",
        "destination": "dag_run",
        "url_route": "run_leaderboard",
    },
)


class LeaderboardLink(BaseOperatorLink):
    """From a model's task to the run's leaderboard, at that model."""

    name = "Leaderboard"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Give the page's address; empty when the run has no directory.

        Airflow asks right after the task has run, where its ``run_directory`` is known: rendered out of what ``unzip``
        handed on.
        """
        parts = str(getattr(operator, "run_directory", "")).split("/")
        if len(parts) != 3:
            return ""
        _, round_name, run = parts
        return f"{ADDRESS}?{urlencode({'round': round_name, 'run': run, 'model': operator.task_id})}"
