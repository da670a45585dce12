"""Load time of the leaderboard's page, with a hundred runs of sixteen models on the data volume.

A real Chromium opens the page, served by the real application and uvicorn, in a fresh context each time: nothing is
cached in it. The time is from the navigation until the newest run's table is complete and the page has been painted
after it. The user signs in with a token of Airflow's auth manager, as in production, in a temporary Airflow home. The
first load, in which the server reads all runs, is reported separately.

Run it as ``python benchmarks/leaderboard.py``. Needs Chromium.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import sync_playwright
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "plugins"), str(ROOT)]

if TYPE_CHECKING:
    import uvicorn
    from playwright.sync_api import Browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
LOADED = """
() => new Promise((resolve) => {
    const look = () => {
        const board = document.getElementById('board');
        if (board.getAttribute('aria-busy') === 'false' && board.querySelector('tbody tr')) {
            requestAnimationFrame(() => setTimeout(() => resolve(performance.now())));
        } else requestAnimationFrame(look);
    };
    look();
})
"""


def make_runs(data_dir: Path, runs: int, models: int, eras: int) -> None:
    """Write the runs; only the newest has tables and embeddings."""
    from tests.generated_run import ENSEMBLES, MODELS, make_run

    names = tuple([*MODELS, *(f"model_{index}" for index in range(models))][: models - len(ENSEMBLES)])
    for index in range(runs):
        make_run(data_dir, str(1000 + index), seed=index, models=names, eras=eras, tables=index == runs - 1)


def serve(port: int) -> tuple[uvicorn.Server, str]:
    """Serve the page at a port of this machine; return the server and the token of a signed-in user."""
    import uvicorn
    from airflow.api_fastapi.app import init_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.utils.db import initdb

    from numerai_pipeline.dag.leaderboard_app import create_app

    initdb()
    token = init_auth_manager().generate_jwt(SimpleAuthManagerUser(username="admin", role="VIEWER"))
    server = uvicorn.Server(uvicorn.Config(create_app(), host="127.0.0.1", port=port, log_level="warning"))
    threading.Thread(target=server.run, daemon=True).start()
    return server, token


def load(browser: Browser, address: str, token: str) -> float:
    """Load the page once in a new browser context; return the seconds."""
    context = browser.new_context(viewport={"width": 1400, "height": 900})
    context.add_cookies([{"name": "_token", "value": token, "url": address}])
    page = context.new_page()
    page.goto(address, wait_until="commit")
    milliseconds: float = page.evaluate(LOADED)
    context.close()
    return milliseconds / 1_000


def main() -> None:
    """Time some loads and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--models", type=int, default=16, help="models and ensembles of a run")
    parser.add_argument("--eras", type=int, default=60, help="validation eras")
    parser.add_argument("--loads", type=int, default=9, help="loads to time, after the first")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "AIRFLOW_HOME": home,
            "NUMERAI_DATA_DIR": f"{home}/data",
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__API_AUTH__JWT_SECRET": "the secret of a benchmark, which protects only generated data",
        }
        from launcher.browser import find_browser
        from launcher.local_airflow import any_free_port

        make_runs(Path(home) / "data", chosen.runs, chosen.models, chosen.eras)
        port = any_free_port()
        server, token = serve(port)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
            while not server.started:
                time.sleep(0.05)
            first, *others = [load(browser, f"http://127.0.0.1:{port}/", token) for _ in range(1 + chosen.loads)]
            browser.close()
        server.should_exit = True
    title = f"Loading the leaderboard: {chosen.runs} runs of {chosen.models} models, {chosen.eras} eras"
    table = Table("first load, s", "median after it, s", "most, s", title=title)
    table.add_row(*(f"{seconds:.2f}" for seconds in (first, statistics.median(others), max(others))))
    Console().print(table)


if __name__ == "__main__":
    main()
