"""Two stables beside each other for a week of the practice season, on a real Airflow: every round is submitted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from launcher import local_airflow
from launcher.airflow_api import AirflowApi
from launcher.paths import ProjectPaths
from launcher.processes import wait_until
from launcher.run_monitor import FINAL
from numerai_pipeline.storage.layout import RunLayout
from practice.accounts import Account
from practice.rounds import SATURDAY, SeasonRound, round_open_at
from practice.season import Season
from practice.server import PracticeServer, running
from tests.end_to_end.scheduled_runs import create_runs
from tests.end_to_end.test_rounds import IMAGES, SIZE, TIMEOUT, copied_checkout

pytestmark = [pytest.mark.end_to_end, pytest.mark.containers, pytest.mark.timeout(1800)]

KEYS = ("PUBLIC-ID-OF-STABLES", "secret-key-of-stables")
STABLES = {
    "stables": [
        {
            "name": "tournament",
            "schedule": "all",
            "parameters": {"source": "practice", "models": ["svm"]},
            "submissions": {"mine": "svm"},
        },
        {
            "name": "weekday",
            "schedule": "tue,wed,thu,fri",
            "parameters": {"source": "practice", "models": ["svm"]},
            "submissions": {"other": "svm"},
        },
    ]
}


class LongRound(SeasonRound):
    """A round that closes in a month: it is open on the season's clock, and on the real one of the pipeline."""

    @property
    def closes(self) -> datetime:
        return self.opens + timedelta(days=30)


class MovingSeason(Season):
    """A season whose clock the test moves."""

    clock = datetime.now(UTC)

    def now(self) -> datetime:
        return self.clock

    def round(self, number: int) -> SeasonRound:
        return LongRound(number)


@dataclass
class Week:
    """An Airflow of ``make up`` with two stables, and the season that they submit to."""

    checkout: ProjectPaths
    api: AirflowApi
    server: PracticeServer
    rounds: list[SeasonRound]

    def start(self, the_round: SeasonRound, dags: list[str]) -> str:
        """Open a round and start its scheduled runs; return their id."""
        season = self.server.season
        assert isinstance(season, MovingSeason)
        season.clock = the_round.opens + timedelta(minutes=30)
        return create_runs(self.checkout, self.server.address, the_round, dags)

    def outcome(self, dag: str, run_id: str) -> tuple[RunLayout, dict[str, Any]]:
        """Wait for the end of a run; return its directory and the result of `submit`."""
        assert wait_until(lambda: self.api.run_state(dag, run_id) in FINAL, TIMEOUT, every=1)
        assert self.api.run_state(dag, run_id) == "success", self.api.task_instances(dag, run_id)
        directory = self.api.return_value(dag, run_id, "unzip")["directory"]
        return RunLayout(self.checkout.root / "data" / directory), self.api.return_value(dag, run_id, "submit")


def complete_week() -> list[SeasonRound]:
    """Return the rounds from Saturday to Friday of a week for which Airflow starts no run by itself.

    It starts the run of the latest day of each schedule.
    """
    latest = round_open_at(datetime.now(UTC))
    saturday = latest.number - (latest.weekday - SATURDAY) % 5 - 10
    rounds = [SeasonRound(number) for number in range(saturday, saturday + 5)]
    assert rounds[0].weekday == SATURDAY
    return rounds


@pytest.fixture
def week(tmp_path: Path, model_image: Callable[[str], str]) -> Iterator[Week]:
    for image in IMAGES:
        model_image(image)
    rounds = complete_week()
    MovingSeason.clock = rounds[0].opens
    account = Account.of(":".join(KEYS), ["mine", "other"])
    checkout = copied_checkout(tmp_path / "checkout")
    registry = yaml.safe_load((checkout.images_dir / "models.yaml").read_text())
    registry["tasks"] = {name: registry["tasks"][name] for name in ("svm", "evaluate")}
    registry["tasks"]["evaluate"]["depends_on"] = ["models"]
    registry["images"] = {name: registry["images"][name] for name in IMAGES}
    (checkout.images_dir / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    stables = tmp_path / "stables.yaml"
    stables.write_text(yaml.safe_dump(STABLES))
    with running(MovingSeason(tmp_path / "season", SIZE), [account]) as server:
        environment = {
            name: value for name, value in os.environ.items() if not re.match("MAKE|MFL|NUMERAI_|AIRFL", name)
        }
        environment |= {
            "NUMERAI_API_URL": server.address,
            "NUMERAI_PRACTICE_URL": server.address,
            "NUMERAI_STABLES": str(stables),
            "AIRFLOW_CONN_NUMERAI_PRACTICE": json.dumps(
                {"conn_type": "generic", "login": KEYS[0], "password": KEYS[1]}
            ),
        }

        def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "launcher", *arguments]
            return subprocess.run(
                command, env=environment, cwd=checkout.root, capture_output=True, text=True, check=False
            )

        try:
            started = launch("up", f"PORT={local_airflow.any_free_port()}")
            assert started.returncode == 0, started.stdout + started.stderr
            address = re.findall(r"(http://127\.0\.0\.1:\d+), user", started.stdout)[0]
            api = AirflowApi(address, local_airflow.USER, local_airflow.password_file(checkout))
            assert wait_until(lambda: api.dag("numerai_weekday") is not None, TIMEOUT, every=1)
            yield Week(checkout, api, server, rounds)
        finally:
            stopped = launch("down")
        assert stopped.returncode == 0, stopped.stdout + stopped.stderr


def test_two_stables_submit_every_round_of_a_week(week: Week) -> None:
    """Saturday's round is the default stable's; on the other days runs of both have equal ids, and equal work."""
    fits: set[str] = set()
    for the_round in week.rounds:
        dags = ["numerai_tournament", *(["numerai_weekday"] if the_round.weekday != SATURDAY else [])]
        run_id = week.start(the_round, dags)
        outcomes = {dag: week.outcome(dag, run_id) for dag in dags}
        names = dict(zip(dags, ("mine", "other"), strict=False))
        for dag, (layout, result) in outcomes.items():
            assert layout.directory.parent.name == str(the_round.number)
            record = result["submissions"][names[dag]]
            assert (record["status"], record["round"]) == ("on-time", the_round.number)
            assert (record["dag"], record["run_id"]) == (dag, run_id)
            fits.add(week.api.return_value(dag, run_id, "svm")["fit"])
        # each run has a directory, and both have the same predictions
        assert len({layout.directory for layout, _ in outcomes.values()}) == len(dags)
        assert len({layout.predictions("svm").resolve() for layout, _ in outcomes.values()}) == 1
    numbers = [the_round.number for the_round in week.rounds]
    submitted = {
        model.name: sorted(each.round for each in week.server.store.submissions(model.id))
        for model in week.server.store.models()
    }
    assert submitted == {"mine": numbers, "other": numbers[1:]}
    assert len(fits) == 1
    slots = sorted(week.checkout.root.glob("data/submissions/practice/*/*.json"))
    assert len([slot for slot in slots if "manifest" not in slot.name]) == 9
