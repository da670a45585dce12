"""Writes the leaderboard of one run as one HTML file, which needs neither Airflow nor a network."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerai_pipeline.leaderboard.maps import EmbeddingError, embedding_points, embedding_rows
from numerai_pipeline.leaderboard.page import render_standalone
from numerai_pipeline.leaderboard.run_view import read_run
from numerai_pipeline.storage.manifests import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.storage.layout import RunLayout


def write_static_page(layout: RunLayout) -> Path:
    """Write ``leaderboard.html`` into a run's directory; return its path.

    It contains the present results, its scripts and its data, and makes no requests.
    """
    board = read_run(layout)
    address = f"api/runs/{board['round']}/{board['run']}"
    metadata = board["metadata"]
    names = ("stable", "source", "version", "feature_set", "target", "era", "features")
    listed = {"round": board["round"], "run": board["run"], **{name: metadata.get(name) for name in names}}
    answers: dict[str, Any] = {"api/runs": [listed], address: board}
    try:
        if board["embeddings"]:
            answers[f"{address}/embeddings"] = embedding_rows(layout)
            for name in board["embeddings"]:
                answers[f"{address}/embeddings/{name}"] = embedding_points(layout, name)
    except EmbeddingError as error:
        board["problems"].append(str(error))
        board["embeddings"] = []
    with atomic_path(layout.static_page) as temporary:
        temporary.write_text(render_standalone(answers), encoding="utf-8")
    return layout.static_page
