"""Takes the screenshots of the documentation from a running Airflow.

``make up``, then ``make run`` for a run to show, then ``.venv/bin/python docs/take_screenshots.py``. Needs Chromium.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from playwright.sync_api import expect, sync_playwright

if TYPE_CHECKING:
    from playwright.sync_api import Page

ROOT = Path(__file__).resolve().parent.parent
DAG = "numerai_tournament"
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]


def sign_in(page: Page, address: str, password: str) -> None:
    """Sign in as the administrator that `airflow standalone` created."""
    page.goto(address)
    page.fill("input[name=username]", "admin")
    page.fill("input[name=password]", password)
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("link", name="Dags")).to_be_visible(timeout=30_000)


def take_graph(page: Page, address: str, picture: Path) -> None:
    """Take a screenshot of the newest run's graph."""
    answer = page.request.get(f"{address}/api/v2/dags/{DAG}/dagRuns?order_by=-run_after&limit=1").json()
    page.goto(f"{address}/dags/{DAG}/runs/{answer['dag_runs'][0]['dag_run_id']}")
    page.get_by_role("button", name="Show Graph").click()
    page.get_by_role("button", name="Collapse Details Panel").click()
    expect(page.locator(".react-flow__node").filter(has_text="exploring")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Fit View").click()
    page.wait_for_timeout(2_000)  # wait for the animation
    page.screenshot(path=picture)


def main() -> None:
    """Take all screenshots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--address", default="http://127.0.0.1:8080", help="Airflow's page")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    parser.add_argument("--airflow-home", type=Path, default=ROOT / ".airflow")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "images")
    chosen = parser.parse_args()
    passwords = json.loads((chosen.airflow_home / "simple_auth_manager_passwords.json.generated").read_text())
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chosen.chromium, args=FLAGS)
        page = browser.new_page(viewport={"width": 1400, "height": 720})
        sign_in(page, chosen.address, passwords["admin"])
        take_graph(page, chosen.address, chosen.output / "graph.png")
        browser.close()


if __name__ == "__main__":
    main()
