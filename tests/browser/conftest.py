"""A real Airflow with its web UI, a few generated runs to look at, and a real browser."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, Page, sync_playwright

from launcher.browser import find_browser
from launcher.local_airflow import any_free_port
from numerai_pipeline.storage.layout import RunLayout
from tests.generated_run import MODELS, make_run
from tests.samples import ROOT

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking", "--disable-sync"]
START_SECONDS = 240.0
HOSTILE = "<img src=x onerror=document.title='owned'>{a|b}"


@dataclass(frozen=True)
class WebUi:
    """An Airflow that serves its web UI.

    Attributes
    ----------
    address
        Without a slash at its end.
    password
        Of the user admin.
    finished, half, hostile
        Runs to look at; the first is that of `dag_run`.
    dag_run
        A run of the DAG numerai_tournament, whose task svm links to the leaderboard.
    """

    address: str
    password: str
    finished: RunLayout
    half: RunLayout
    hostile: RunLayout
    dag_run: str

    def token(self) -> str:
        """Sign in without a browser."""
        answer = requests.post(
            f"{self.address}/auth/token", json={"username": "admin", "password": self.password}, timeout=30
        )
        answer.raise_for_status()
        return str(answer.json()["access_token"])


def make_hostile(data_dir: Path) -> RunLayout:
    """Make a run with a model whose name is HTML."""
    layout = make_run(data_dir, "1330", models=("svm", "xgboost"), seed=3)
    for path in (layout.leaderboard, layout.evaluation("svm")):
        path.write_text(path.read_text().replace('"svm"', json.dumps(HOSTILE)))
    return layout


@pytest.fixture(scope="module")
def web_ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WebUi]:
    """Start Airflow's API server on a separate database, with one run of the DAG."""
    home = tmp_path_factory.mktemp("airflow")
    data_dir = home / "data"
    finished = make_run(data_dir)
    reasons = {
        "meta_model": "meta_model.parquet: the server answered 404 Not Found",
        "benchmark_live": "live_benchmark_models.parquet: no values of v6_new, which the other file has",
    }
    half = make_run(data_dir, seed=5, evaluated=False, tables=False, models=MODELS[:3], unavailable=reasons)
    os.utime(half.run_metadata, (1, 1))  # of the same round, but older: the page shows the other run first
    hostile = make_hostile(data_dir)
    port, password = any_free_port(), secrets.token_urlsafe()
    address = f"http://127.0.0.1:{port}"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "NUMERAI_"))},
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(Path(__file__).parent / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__API__HOST": "127.0.0.1",
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__BASE_URL": address,
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_urlsafe(64),
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "NUMERAI_DATA_DIR": str(data_dir),
        "PLAYED_RUN": str(finished.directory.relative_to(data_dir)),
        "PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT}",
    }
    played = subprocess.run(
        [sys.executable, Path(__file__).parent / "play.py"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert played.returncode == 0, played.stdout + played.stderr
    (home / "simple_auth_manager_passwords.json.generated").write_text(json.dumps({"admin": password}))
    with (home / "api-server.log").open("w") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "airflow", "api-server"],
            env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
    try:
        wait_for(f"{address}/api/v2/version", server, home / "api-server.log")
        dag_run = played.stdout.splitlines()[-1].strip()
        yield WebUi(address, password, finished, half, hostile, dag_run)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        try:
            server.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


def wait_for(address: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return once a server answers."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(address, timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail(f"Airflow's API server did not start:\n{log.read_text()[-5_000:]}")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Start Chromium; without Chromium the tests are skipped with a message."""
    program = find_browser()
    if program is None:
        pytest.skip("THERE IS NO CHROMIUM, so nothing is known of the page: `make test` installs it, as root on Debian")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


class Watched:
    """A page in a browser that records console errors and requests to other hosts."""

    def __init__(self, page: Page, address: str) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        page.on(
            "console", lambda line: self.complaints.append(line.text) if line.type in {"error", "warning"} else None
        )
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on(
            "request",
            lambda asked: (
                None if asked.url.startswith((address, "data:", "blob:")) else self.elsewhere.append(asked.url)
            ),
        )

    def assert_quiet(self) -> None:
        """Check that there were no errors and no requests to other hosts."""
        assert self.complaints == []
        assert self.elsewhere == []
