"""The leaderboard's web application, in Airflow's API server, for users who may see the DAG.

Airflow does not authenticate users for a plugin's application: each route here, including static files, depends on
Airflow's check that the signed-in user may read the tournament's DAG. FastAPI's documentation routes are disabled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from airflow.api_fastapi.core_api.security import requires_access_dag
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.leaderboard.maps import EmbeddingError, embedding_points, embedding_rows
from numerai_pipeline.leaderboard.page import ASSETS, read_asset, render_live
from numerai_pipeline.leaderboard.run_view import read_run
from numerai_pipeline.leaderboard.runs import find_run, list_runs, run_of_dag_run
from numerai_pipeline.storage.layout import RunLayout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

DAG_ID = "numerai_tournament"

# no content of other servers, and only the scripts and styles of this application
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)


def _run(round_name: str, run: str) -> RunLayout:
    found = find_run(load_settings().data_dir, round_name, run)
    if found is None:
        raise HTTPException(404, "This run does not exist. Housekeeping may have removed it.")
    return found


Run = Annotated[RunLayout, Depends(_run)]


def create_app() -> FastAPI:
    """Create the application."""
    app = FastAPI(
        title="Numerai leaderboard",
        dependencies=[Depends(requires_access_dag("GET", param_dag_id=DAG_ID))],
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
    )
    app.middleware("http")(_with_headers)
    app.get("/")(_page)
    app.get("/assets/{name}")(_asset)
    app.get("/api/runs")(_runs)
    app.get("/api/dag-run")(_dag_run)
    app.get("/api/runs/{round_name}/{run}")(_board)
    app.get("/api/runs/{round_name}/{run}/embeddings")(_embedding_rows)
    app.get("/api/runs/{round_name}/{run}/embeddings/{name}")(_embedding)
    return app


async def _with_headers(request: Request, respond: Callable[[Request], Awaitable[Response]]) -> Response:
    response = await respond(request)
    response.headers["Content-Security-Policy"] = POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _page() -> HTMLResponse:
    return HTMLResponse(render_live())


def _asset(name: str) -> Response:
    if name not in ASSETS:
        raise HTTPException(404, "This file does not exist.")
    # its address has a hash of its content, so a browser may cache it; proxies may not
    return Response(
        read_asset(name), media_type=ASSETS[name], headers={"Cache-Control": "private, max-age=31536000, immutable"}
    )


def _runs() -> list[dict[str, Any]]:
    return list_runs(load_settings().data_dir)


def _dag_run(dag: str, run: str) -> dict[str, str]:
    found = run_of_dag_run(load_settings().data_dir, dag, run)
    if found is None:
        raise HTTPException(404, "This run of the DAG has no directory yet: its task unzip creates it.")
    return {"round": found.directory.parent.name, "run": found.directory.name}


def _board(found: Run) -> dict[str, Any]:
    return read_run(found)


def _embedding_rows(found: Run) -> dict[str, Any]:
    try:
        return embedding_rows(found)
    except EmbeddingError as error:
        raise HTTPException(404, f"The rows cannot be read: {error}") from None


def _embedding(found: Run, name: str) -> dict[str, Any]:
    try:
        return embedding_points(found, name)
    except EmbeddingError as error:
        raise HTTPException(404, f"The embedding cannot be read: {error}") from None
