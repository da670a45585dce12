"""Registers the leaderboard in Airflow: its application, its menu entry and its links.

All Airflow components load the plugins, but only the API server serves pages: the application is created with its
first request. Addresses are relative to Airflow's address, so they do not depend on the deployment.
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
    from numerai_pipeline.dag.leaderboard_app import create_app

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
    """Link from a model's task to its row on the run's leaderboard."""

    name = "Leaderboard"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - Airflow's signature
        """Return the page's address; empty if the run has no directory.

        Airflow calls this directly after the task has run, when the template ``run_directory`` is rendered with the
        result of ``unzip``.
        """
        parts = str(getattr(operator, "run_directory", "")).split("/")
        if len(parts) != 3:
            return ""
        _, round_name, run = parts
        return f"{ADDRESS}?{urlencode({'round': round_name, 'run': run, 'model': operator.task_id})}"
