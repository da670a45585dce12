"""Whole commands with a program in place of Airflow and one in place of Docker: what they print, start and stop."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from rich.console import Console

from launcher import __main__, local_airflow
from launcher.console import Screen
from launcher.context import CommandContext
from launcher.errors import EXIT_BUSY, EXIT_FAILED, EXIT_STOPPED
from launcher.paths import ROOT, ProjectPaths
from launcher.processes import ServiceRecord, Services, wait_until
from launcher.signals import STOPPING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.launcher.conftest import Programs

pytestmark = pytest.mark.slow

DOCKER = """
case "$1 $2" in
    "version --format") echo 27.0.1 ;;
    "context inspect") echo '[]' ;;
    "ps --quiet") [[ $* != *label=numerai.deployment=* ]] || cat {containers} 2>/dev/null ;;
    "rm --force") rm -f {containers} ;;
esac
"""


class Checkout:
    """A checkout whose Airflow and Docker are fakes; all model images are present."""

    def __init__(self, root: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
        self.paths = ProjectPaths(root)
        self.archive = root / "dataset.zip"
        self.archive.touch()
        self.containers = root / "containers"
        self.outcome = "success"
        self.programs = programs
        programs.add("docker", DOCKER.replace("{containers}", str(self.containers)))
        self.screen = Screen(Console(record=True, width=200, force_terminal=False))
        monkeypatch.setattr(__main__, "ProjectPaths", lambda: self.paths)
        monkeypatch.setattr(__main__, "Screen", lambda: self.screen)
        monkeypatch.setattr(local_airflow, "start", self.start_airflow)
        # needs a container
        monkeypatch.setattr(CommandContext, "check_data_volume", lambda _: None)

    def start_airflow(
        self, services: Services, paths: ProjectPaths, environment: dict[str, str], owner: str, details: Any
    ) -> ServiceRecord:
        paths.airflow_home.mkdir(parents=True, exist_ok=True)
        program = Path(__file__).with_name("fake_airflow.py")
        command: list[str | Path] = [
            sys.executable,
            program,
            environment["AIRFLOW__API__PORT"],
            paths.airflow_home,
            self.outcome,
        ]
        log = local_airflow.log_file(paths)
        return services.start(local_airflow.SERVICE, command, owner=owner, log=log, details=details)

    def make(self, command: str, **options: str) -> tuple[int, str]:
        """Run a command of the launcher in this process; returns the exit code and the output."""
        if command in {"run", "backtest"}:
            options = {"ARCHIVE": str(self.archive), **options} if command == "run" else options
        code = __main__.main([command, *(f"{name}={value}" for name, value in options.items())])
        return code, self.screen.console.export_text()

    def requests(self) -> list[str]:
        """The requests to Airflow that changed something, without their bodies."""
        lines = (self.paths.airflow_home / "requests").read_text().splitlines()
        return [line.partition(" {")[0].replace("/api/v2/", "") for line in lines]

    def is_airflow_running(self) -> bool:
        return Services(self.paths.services).find(local_airflow.SERVICE) is not None


@pytest.fixture
def checkout(tmp_path: Path, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> Iterator[Checkout]:
    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(ROOT / "model_images"))
    monkeypatch.setenv("NUMERAI_PRACTICE_URL", "http://127.0.0.1:1")
    (tmp_path / "root").mkdir()
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    checkout = Checkout(tmp_path / "root", programs, monkeypatch)
    yield checkout
    for number, handler in handlers.items():
        signal.signal(number, handler)
    Services(checkout.paths.services).stop(local_airflow.SERVICE, grace=1)


def test_run_prints_the_predictions_and_stops_everything(checkout: Checkout) -> None:
    checkout.containers.write_text("one\ntwo\n")
    code, output = checkout.make("run", MODELS="svm", PORT=str(local_airflow.any_free_port()))
    assert code == 0, output
    assert "✓ Docker engine   Docker 27.0.1 is running" in output
    assert "unchanged" in output
    assert f"started: SOURCE=archive, ARCHIVE={checkout.archive}, MODELS=svm" in output
    assert "  svm: done" in output
    assert "svm 9 0.69000 unknown 0.0200" in " ".join(output.split())
    assert "Run succeeded   round 1400, took " in output
    assert "✓ Stopped         Airflow" in output
    assert not checkout.is_airflow_running()
    assert not checkout.containers.exists()
    paused, trigger, again = checkout.requests()[-3:]
    assert paused == again == "PATCH dags/numerai_tournament"
    assert trigger == "POST dags/numerai_tournament/dagRuns"


def test_run_that_fails_names_the_task_and_its_error(checkout: Checkout) -> None:
    checkout.outcome = "failed"
    code, output = checkout.make("run")
    assert code == EXIT_FAILED
    assert "✗ Run failed      svm" in output
    assert "  svm: too little memory" in output
    assert not checkout.is_airflow_running()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_when_stopped_ends_its_run_and_stops_everything(checkout: Checkout, number: signal.Signals) -> None:
    checkout.outcome = "never"

    def stop() -> None:
        def has_run() -> bool:
            return (checkout.paths.airflow_home / "requests").exists() and any(
                "dagRuns" in r for r in checkout.requests()
            )

        assert wait_until(has_run, 120)
        os.kill(os.getpid(), number)

    stopper = threading.Thread(target=stop)
    stopper.start()
    code, output = checkout.make("run")
    stopper.join()
    assert code == EXIT_STOPPED
    assert "everything started by this command has been stopped" in output
    assert "✓ Stopped         Airflow" in output
    assert not checkout.is_airflow_running()
    assert any(
        request.startswith("PATCH dags/numerai_tournament/dagRuns/make_run__") for request in checkout.requests()
    )


def test_up_keeps_airflow_running_which_run_uses_and_down_stops(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    # `make up` always starts the simulator
    monkeypatch.setattr("launcher.simulator.start", lambda *_, **__: None)
    code, output = checkout.make("up", PORT=str(local_airflow.any_free_port()))
    assert code == 0, output
    assert "Airflow's page    http://127.0.0.1:" in output
    assert checkout.is_airflow_running()
    code, output = checkout.make("up")
    assert (code, "· Airflow         is already running" in output) == (0, True)

    code, output = checkout.make("run")
    assert code == 0, output
    assert "the one of `make up`" in output
    assert checkout.is_airflow_running()

    code, output = checkout.make("down")
    assert code == 0
    assert "✓ Stopped         Airflow" in output
    assert not checkout.is_airflow_running()
    code, output = checkout.make("down")
    assert "nothing: nothing was running" in output


def test_run_stops_the_leftover_airflow_of_a_killed_command(checkout: Checkout) -> None:
    environment = {"AIRFLOW__API__PORT": str(local_airflow.any_free_port())}
    leftover = checkout.start_airflow(Services(checkout.paths.services), checkout.paths, environment, "run", None)
    code, output = checkout.make("run")
    assert code == 0, output
    assert "stopped leftover services of an earlier command that was killed" in output
    assert not leftover.alive


def test_command_during_another_one_is_rejected(checkout: Checkout) -> None:
    import fcntl

    lock = checkout.paths.cache / "command.lock"
    lock.parent.mkdir()
    lock.write_text(json.dumps({"pid": 1234, "command": "backtest"}))
    with lock.open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        code, output = checkout.make("run")
    assert code == EXIT_BUSY
    assert "make backtest is already running in this checkout (process 1234)" in output


def test_backtest_prints_each_week_and_reports_failed_ones(checkout: Checkout) -> None:
    checkout.outcome = "failed"
    code, output = checkout.make("backtest", WEEKS="1", SOURCE="numerai")
    assert code == EXIT_FAILED
    assert "FAILED after 0.0 s: svm: too little memory" in output
    assert "1 of 1 weeks in" in output
    assert not checkout.is_airflow_running()


def test_airflow_that_ends_early_is_reported_with_its_log(checkout: Checkout, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(services: Services, paths: ProjectPaths, _: Any, owner: str, details: Any) -> ServiceRecord:
        command = ["bash", "-c", "echo no such table: dag >&2; exit 1"]
        log = local_airflow.log_file(paths)
        return services.start(local_airflow.SERVICE, command, owner=owner, log=log, details=details)

    monkeypatch.setattr(local_airflow, "start", start)
    code, output = checkout.make("run")
    assert code == EXIT_FAILED
    assert "✗ Airflow         Airflow ended unexpectedly" in output
    assert "no such table: dag" in output


def test_clean_stops_everything_and_keeps_the_data(checkout: Checkout) -> None:
    checkout.paths.data.mkdir()
    (checkout.paths.root / "launcher" / "__pycache__").mkdir(parents=True)
    code, output = checkout.make("clean")
    assert code == 0, output
    assert checkout.paths.data.exists()
    assert not list(checkout.paths.root.rglob("__pycache__"))
    assert "Kept: data/" in output
    checkout.make("clean", ALL="1")
    assert not checkout.paths.data.exists()


def test_airflow_without_one_in_the_background_names_make_up(checkout: Checkout) -> None:
    code, output = checkout.make("airflow", ARGS="dags list")
    assert code == EXIT_FAILED
    assert "Start it first: make up" in output
