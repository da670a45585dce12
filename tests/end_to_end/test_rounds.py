"""The three ways to start a run, on a real Airflow: schedule, trigger form, and ``airflow backfill create``."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from launcher import local_airflow
from launcher.airflow_api import AirflowApi
from launcher.backtest import end_backfill
from launcher.console import Screen
from launcher.context import CommandContext
from launcher.options import BacktestRange
from launcher.paths import ROOT, ProjectPaths
from launcher.processes import wait_until
from launcher.run_monitor import FINAL, task_log_lines
from launcher.signals import StopSignals
from numerai_pipeline.storage.layout import RunLayout
from numerai_pipeline.storage.manifests import verified_manifest
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running
from tests.end_to_end.scheduled_runs import create_runs
from tests.samples import ROUND_DAYS

pytestmark = [pytest.mark.end_to_end, pytest.mark.containers, pytest.mark.timeout(900)]

SIZE = SeasonSize(rows_per_era=60, train_eras=20, validation_eras=30, small=8, medium=10, all_features=12)
DAG = local_airflow.DAG_ID
IMAGES = ("classic", "evaluation")
TIMEOUT = 300.0


@dataclass
class Deployment:
    """An Airflow of ``make up``, with one model and a separate simulator."""

    checkout: ProjectPaths
    environment: dict[str, str]
    season: Season

    def connect(self, address: str) -> None:
        self.api = AirflowApi(address, local_airflow.USER, local_airflow.password_file(self.checkout))

    def runs(self, run_type: str) -> list[dict[str, Any]]:
        found = self.api.runs(DAG, run_type=run_type)
        return sorted(found, key=lambda run: str(run["run_after"]))

    def ended(self, run_type: str, count: int) -> list[dict[str, Any]]:
        """Wait until there are so many runs of a type and all of them have ended."""

        def are_over() -> bool:
            runs = self.runs(run_type)
            # Airflow marks a backfill as completed shortly after its last run, and starts no other before
            if run_type == "backfill" and self.api.unfinished_backfills(DAG):
                return False
            return len(runs) >= count and all(run["state"] in FINAL for run in runs)

        assert wait_until(are_over, TIMEOUT, every=1), self.runs(run_type)
        return self.runs(run_type)

    def layout(self, run: dict[str, Any]) -> RunLayout:
        return RunLayout(
            self.checkout.root / "data" / self.api.return_value(DAG, run["dag_run_id"], "unzip")["directory"]
        )

    def log_of(self, run: dict[str, Any], task: str) -> str:
        attempt = next(
            instance["try_number"]
            for instance in self.api.task_instances(DAG, run["dag_run_id"])
            if instance["task_id"] == task
        )
        return "\n".join(
            str(line["event"]) for line in task_log_lines(self.api.log_events(DAG, run["dag_run_id"], task, attempt))
        )

    def backfill(self, first: SeasonRound, last: SeasonRound, *options: str) -> subprocess.CompletedProcess[str]:
        """Run ``airflow backfill create`` for the days of these rounds."""
        conf = json.dumps({"source": "practice", "models": ["svm"]})
        command = ["backfill", "create", "--dag-id", DAG, "--max-active-runs", "2", "--dag-run-conf", conf]
        command += ["--from-date", str(first.day), "--to-date", str(last.day + timedelta(days=1)), *options]
        return self.launch("airflow", f"ARGS={shlex.join(command)}")

    def launch(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the launcher with such arguments."""
        return subprocess.run(
            [sys.executable, "-m", "launcher", *arguments],
            env=self.environment,
            cwd=self.checkout.root,
            capture_output=True,
            text=True,
            check=False,
        )


@pytest.fixture(scope="module")
def season(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PracticeServer]:
    # its clock stands still, so that no round ends during the tests
    with running(Season(tmp_path_factory.mktemp("season"), SIZE, today=datetime.now(UTC))) as server:
        yield server


def copied_checkout(root: Path) -> ProjectPaths:
    """Make a new checkout without results of earlier runs."""
    for name in ("dags", "plugins", "launcher", "practice", "model_images"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "data").mkdir()
    # model containers run as another user where Airflow is root, and need access to the data
    for folder in (root, *list(root.parents)[:2]):
        folder.chmod(folder.stat().st_mode | 0o055)
    return ProjectPaths(root)


@pytest.fixture(scope="module")
def deployment(
    season: PracticeServer, tmp_path_factory: pytest.TempPathFactory, model_image: Callable[[str], str]
) -> Iterator[Deployment]:
    for image in IMAGES:
        model_image(image)
    checkout = copied_checkout(tmp_path_factory.mktemp("checkout"))
    registry = yaml.safe_load((checkout.images_dir / "models.yaml").read_text())
    registry["tasks"] = {name: registry["tasks"][name] for name in ("svm", "evaluate")}
    registry["tasks"]["evaluate"]["depends_on"] = ["models"]
    registry["images"] = {name: registry["images"][name] for name in IMAGES}
    (checkout.images_dir / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    today = season.season.current_round()
    inherited = {
        name: value for name, value in os.environ.items() if not re.match("MAKE|MFLAGS|NUMERAI_|AIRFLOW", name)
    }
    environment = inherited | {
        "NUMERAI_API_URL": season.address,
        "NUMERAI_PRACTICE_URL": season.address,
        # the day of the open round
        "NUMERAI_SCHEDULE": ROUND_DAYS[today.weekday],
    }
    found = Deployment(checkout, environment, season.season)
    try:
        started = found.launch("up", f"PORT={local_airflow.any_free_port()}")
        assert started.returncode == 0, started.stdout + started.stderr
        address = re.findall(r"(http://127\.0\.0\.1:\d+), user", started.stdout)[0]
        found.connect(address)
        yield found
    finally:
        stopped = found.launch("down")
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr


def assert_belongs_to(layout: RunLayout, number: int) -> None:
    assert layout.directory.parent.name == str(number)
    assert json.loads(layout.run_metadata.read_text())["round"] == str(number)
    manifest = verified_manifest(layout.predictions("svm"))
    assert manifest is not None
    assert manifest.rows


def test_scheduled_run_uses_the_round_of_its_day(deployment: Deployment) -> None:
    create_runs(
        deployment.checkout,
        deployment.environment["NUMERAI_PRACTICE_URL"],
        deployment.season.current_round(),
        [DAG],
    )
    (run,) = deployment.ended("scheduled", 1)
    assert run["state"] == "success"
    number = deployment.season.current_round().number
    assert_belongs_to(deployment.layout(run), number)
    assert f"round {number}" in deployment.log_of(run, "wait_for_round")


def test_manual_run_uses_the_round_of_the_form(deployment: Deployment) -> None:
    number = deployment.season.current_round().number - 1
    deployment.api.trigger(DAG, "by_hand", {"source": "practice", "round": number, "models": ["svm"]})
    (run,) = deployment.ended("manual", 1)
    assert run["state"] == "success"
    assert_belongs_to(deployment.layout(run), number)


def test_backfill_of_four_weeks_uses_the_round_of_each(deployment: Deployment) -> None:
    current = deployment.season.current_round().number
    # rounds of the scheduled day in four weeks whose 60-day targets are known: 13 weeks ago or earlier
    rounds = [SeasonRound(current - 5 * weeks) for weeks in (17, 16, 15, 14)]
    dry = deployment.backfill(rounds[0], rounds[-1], "--dry-run")
    assert dry.returncode == 0, dry.stdout + dry.stderr
    for each in rounds:
        # Airflow lists logical dates: the beginnings of the weeks that end with the rounds' openings
        assert str(each.day - timedelta(days=7)) in dry.stdout
    assert deployment.runs("backfill") == []

    done = deployment.backfill(rounds[0], rounds[-1])
    assert done.returncode == 0, done.stdout + done.stderr
    runs = deployment.ended("backfill", 4)
    assert [run["state"] for run in runs] == ["success"] * 4
    for run, each in zip(runs, rounds, strict=True):
        layout = deployment.layout(run)
        assert_belongs_to(layout, each.number)
        assert verified_manifest(layout.targets)
        assert json.loads(layout.run_metadata.read_text())["era"] == each.era
    # each file was downloaded once for all runs
    assert len(list(deployment.checkout.root.glob("data/downloads/practice/*/validation.parquet"))) == 1
    assert all("up to date" not in deployment.log_of(run, "svm") for run in runs)


def test_backfill_reprocess_behavior_selects_the_runs(deployment: Deployment) -> None:
    """On the first two weeks, `none` runs nothing, `failed` the failed week, `completed` both."""
    before = deployment.ended("backfill", 4)
    current = deployment.season.current_round().number
    first, last = (SeasonRound(current - 5 * weeks) for weeks in (17, 16))

    nothing = deployment.backfill(first, last, "--reprocess-behavior", "none")
    assert nothing.returncode == 0, nothing.stdout + nothing.stderr
    assert [run["start_date"] for run in deployment.ended("backfill", 4)] == [run["start_date"] for run in before]

    failed, *others = before
    deployment.api.fail_run(DAG, failed["dag_run_id"], note="failed by a test")
    again = deployment.backfill(first, last, "--reprocess-behavior", "failed")
    assert again.returncode == 0, again.stdout + again.stderr
    after = deployment.ended("backfill", 4)
    assert after[0]["state"] == "success"
    assert after[0]["start_date"] > failed["start_date"]
    assert [run["start_date"] for run in after[1:]] == [run["start_date"] for run in others]

    everything = deployment.backfill(first, last, "--reprocess-behavior", "completed")
    assert everything.returncode == 0, everything.stdout + everything.stderr
    completed, untouched = (deployment.ended("backfill", 4)[part] for part in (slice(2), slice(2, None)))
    assert all(now["start_date"] > then["start_date"] for now, then in zip(completed, after[:2], strict=True))
    assert [run["start_date"] for run in untouched] == [run["start_date"] for run in after[2:]]
    for run in completed:
        assert run["state"] == "success"
        assert "up to date: fit " in deployment.log_of(run, "svm")


def test_make_backtest_summarizes_the_scores_of_every_model(deployment: Deployment) -> None:
    """Two of the earlier weeks and one more; the earlier ones are up to date."""
    current = deployment.season.current_round().number
    rounds = [SeasonRound(current - 5 * weeks) for weeks in (16, 15, 13)]
    done = deployment.launch("backtest", "MODELS=svm", f"FROM={rounds[0].day}", f"TO={rounds[-1].day}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Backtest done   4 weeks in " in done.stdout
    path = Path(re.findall(r"^Every score: (.+)$", done.stdout, flags=re.MULTILINE)[0])
    with path.open() as file:
        rows = list(csv.DictReader(file))
    days = [SeasonRound(current - 5 * weeks).day for weeks in (16, 15, 14, 13)]
    assert [row["week"] for row in rows] == [str(day) for day in days]
    assert [row["state"] for row in rows] == ["success"] * 4
    runs = {str(run["data_interval_end"])[:10]: run for run in deployment.runs("backfill")}
    for row in rows:
        leaderboard = json.loads(deployment.layout(runs[row["week"]]).leaderboard.read_text())
        (score,) = [model["corr"] for model in leaderboard["models"] if model["model"] == "svm"]
        assert float(row["svm"]) == score
        assert -0.9 < score < 0.9
    scores = [float(row["svm"]) for row in rows]
    assert re.search(rf"^svm +4 +{re.escape(f'{sum(scores) / 4:+.4f}')} ", done.stdout, flags=re.MULTILINE)


def test_make_backtest_cancels_no_backfill_of_the_user(deployment: Deployment) -> None:
    api = deployment.api
    current = deployment.season.current_round().number
    week = SeasonRound(current - 5 * 16)

    def run_of_the_week() -> dict[str, Any]:
        return next(run for run in deployment.runs("backfill") if run["data_interval_end"][:10] == str(week.day))

    deployment.ended("backfill", 1)
    done = deployment.backfill(week, week, "--reprocess-behavior", "completed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert wait_until(lambda: run_of_the_week()["state"] == "running", TIMEOUT, every=0.2)
    # paused, so that the run does not continue during the test
    api.set_paused(DAG, paused=True)
    (backfill,) = api.unfinished_backfills(DAG)
    done = deployment.launch("backtest", "MODELS=svm", f"FROM={week.day}", f"TO={week.day}")
    assert done.returncode != 0
    assert f"backfill {backfill} of {DAG} is not finished, and Airflow runs one at a time" in done.stdout + done.stderr
    assert api.unfinished_backfills(DAG) == [backfill]

    # an interrupted backtest ends its own backfill
    api.trigger(DAG, "beside_a_backtest", {"source": "practice", "models": ["svm"]})
    context = CommandContext(deployment.checkout, Screen(Console(quiet=True)), StopSignals())
    ended = end_backfill(context, api, DAG, backfill, BacktestRange(week.day, week.day))
    assert ended == [run_of_the_week()["dag_run_id"]]
    assert api.unfinished_backfills(DAG) == []
    assert run_of_the_week()["state"] == "failed"
    api.set_paused(DAG, paused=False)
    assert wait_until(lambda: api.run_state(DAG, "beside_a_backtest") in FINAL, TIMEOUT, every=0.5)
    assert api.run_state(DAG, "beside_a_backtest") == "success"
