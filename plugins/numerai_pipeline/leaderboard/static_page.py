"""The leaderboard of one run as one HTML file, to keep, to send, or to look at without Airflow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numerai_pipeline.leaderboard.board import read_run
from numerai_pipeline.leaderboard.maps import MapError, map_points, map_rows
from numerai_pipeline.leaderboard.page import render_standalone
from numerai_pipeline.manifests import atomic_path

if TYPE_CHECKING:
    from pathlib import Path

    from numerai_pipeline.run_layout import RunLayout


def write_static_page(layout: RunLayout) -> Path:
    """Write ``leaderboard.html`` into a run's directory; return where it is.

    It shows what is there at the time, scripts and data inlined, and asks for nothing else.
    """
    board = read_run(layout)
    address = f"api/runs/{board['round']}/{board['run']}"
    facts = board["facts"]
    names = ("source", "version", "feature_set", "target", "era", "features")
    listed = {"round": board["round"], "run": board["run"], **{name: facts.get(name) for name in names}}
    answers: dict[str, Any] = {"api/runs": [listed], address: board}
    try:
        if board["maps"]:
            answers[f"{address}/maps"] = map_rows(layout)
            for name in board["maps"]:
                answers[f"{address}/maps/{name}"] = map_points(layout, name)
    except MapError as error:
        board["problems"].append(str(error))
        board["maps"] = []
    with atomic_path(layout.static_page) as temporary:
        temporary.write_text(render_standalone(answers), encoding="utf-8")
    return layout.static_page
