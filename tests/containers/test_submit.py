"""A round of a practice season from its data to the standings: the real DAG, models in containers, a real upload."""

from __future__ import annotations

import json
import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import pytest
import requests
import yaml
from numerai_tools.scoring import numerai_corr

from numerai_pipeline.numerai_api.submission_files import find_predictions
from numerai_pipeline.storage.layout import RunLayout
from practice.accounts import Account
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running
from tests.conftest import HOME
from tests.containers.conftest import Outcome
from tests.samples import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("images")]

SATURDAY = datetime(2026, 8, 15, 13, 0, tzinfo=UTC)
NUMBER = 1334
KEYS = ("PUBLIC-ID-OF-THE-RUN", "secret-key-of-the-run")
SIZE = SeasonSize(rows_per_era=60, train_eras=20, validation_eras=20, small=8, medium=10, all_features=12)
RunPipeline = Callable[..., Outcome]


class MovingSeason(Season):
    """A season whose clock a test moves."""

    clock = SATURDAY

    def now(self) -> datetime:
        return self.clock


@pytest.fixture(scope="module")
def images(model_image: Callable[[str], str]) -> None:
    for name in ("classic", "evaluation"):
        model_image(name)


@pytest.fixture
def season(tmp_path: Path) -> MovingSeason:
    return MovingSeason(tmp_path / "season", SIZE, seed=5)


@pytest.fixture
def server(season: MovingSeason, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    with running(season, [Account.of(":".join(KEYS), ["mine", "mixed"])]) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mine=svm,mixed=ensemble_selection")
        yield server


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "generic", "login": KEYS[0], "password": KEYS[1]}
    monkeypatch.setenv("AIRFLOW_CONN_NUMERAI_PRACTICE", json.dumps(connection))


@pytest.fixture
def folder(tmp_path: Path) -> Callable[..., Path]:
    """Make a folder of the real images with few of their tasks, some of them changed."""

    def make(*names: str, **changed: dict[str, Any]) -> Path:
        directory = tmp_path / "model_images"
        shutil.copytree(ROOT / "model_images", directory, dirs_exist_ok=True)
        registry = yaml.safe_load((ROOT / "model_images" / "models.yaml").read_text())
        names = names or ("svm", "xgboost", "ensemble", "evaluate")
        registry["tasks"] = {name: registry["tasks"][name] | changed.get(name, {}) for name in names}
        registry["images"] = {name: registry["images"][name] for name in ("classic", "evaluation")}
        (directory / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
        return directory

    return make


def test_submit_simulated_round_is_confirmed_and_scored(
    run_pipeline: RunPipeline,
    folder: Callable[..., Path],
    server: PracticeServer,
    season: MovingSeason,
    keys: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    outcome = run_pipeline(folder(), source="practice", submit=True)
    assert outcome.state == "success"
    result = outcome.tasks["submit"].xcom_pull(task_ids="submit")
    assert result["round"] == NUMBER
    ids = pd.read_parquet(season.file("v5.3/live.parquet", NUMBER)).index
    handed_in = {}
    for model, name in zip(server.store.models(), ("svm", "ensemble_selection"), strict=True):
        (submission,) = server.store.submissions(model.id)
        assert (submission.round, submission.is_late) == (NUMBER, False)
        assert result["submissions"][model.name]["submission"] == submission.id
        table = pd.read_csv(server.store.file(submission), index_col="id")
        assert list(table.index) == list(ids)
        mine = pd.read_csv(RunLayout(outcome.directory).predictions(name), index_col="id")
        pd.testing.assert_frame_equal(table, mine.loc[ids])
        handed_in[model.name] = table
    for task in ("svm", "evaluate"):
        needed = outcome.tasks[task].xcom_pull(task_ids=task)["container"]
        assert needed["seconds"] > 0
        assert 10 < needed["peak_memory_mib"] < 100_000
    # again: nothing is computed, and nothing uploaded
    again = run_pipeline(folder(), source="practice", submit=True)
    assert again.tasks["svm"].xcom_pull(task_ids="svm")["container"] == {}
    assert again.tasks["submit"].xcom_pull(task_ids="submit") == result
    assert "started container" not in again.output
    assert again.directory != outcome.directory
    assert len(server.requests.entries(on="upload")) == 2
    # weeks later, the standings are what anybody can compute from the season's files
    season.clock = SATURDAY + timedelta(weeks=5)
    known = pd.read_parquet(season.file("v5.3/validation.parquet", season.current_round().number))
    targets = known.loc[known["era"] == f"{SeasonRound(NUMBER).era:04d}", "target_ender_20"].astype("float64")
    standings = requests.get(f"{server.address}/practice/standings", timeout=10).json()
    assert {model["name"]: model["corr"] for model in standings["models"]} == pytest.approx(
        {name: numerai_corr(table, targets)["prediction"] for name, table in handed_in.items()}, abs=1e-9
    )
    # and the keys are nowhere
    assert f"mine: svm accepted for round {NUMBER}" in caplog.text
    assert "mixed: submitted before as" in caplog.text
    files = [path for path in (*outcome.directory.rglob("*"), *Path(HOME.name).rglob("*")) if path.is_file()]
    assert any(path.name == "airflow.db" for path in files)
    said = f"{outcome.output}{again.output}{caplog.text}".encode()
    for content in (said, *(path.read_bytes() for path in files)):
        assert not any(secret in content for secret in (KEYS[1].encode(), b"?signature="))


def test_submit_with_a_failed_model_uploads_the_others(
    run_pipeline: RunPipeline,
    folder: Callable[..., Path],
    server: PracticeServer,
    keys: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mine=xgboost,mixed=ensemble_selection")
    outcome = run_pipeline(folder(xgboost={"operation": "no_such_operation"}), source="practice", submit=True)
    states = {name: str(instance.state) for name, instance in outcome.tasks.items()}
    assert (outcome.state, states["xgboost"], states["evaluate"]) == ("failed", "failed", "success")
    assert states["submit"] == "failed"
    assert "failed: mine (submitted: mixed). mine: xgboost has no predictions" in outcome.output
    mine, mixed = server.store.models()
    assert server.store.submissions(mine.id) == []
    assert server.store.latest(mixed.id)[0].status == "on-time"


def test_submit_without_keys_or_parameter_is_skipped(
    run_pipeline: RunPipeline, folder: Callable[..., Path], server: PracticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mine=svm")
    for choices, says in (
        ({"submit": True}, "the source 'practice' has no keys"),
        ({}, "parameter 'submit' is not set"),
    ):
        outcome = run_pipeline(folder("svm"), source="practice", **choices)
        assert outcome.state == "success"
        assert str(outcome.tasks["submit"].state) == "skipped"
        assert says in outcome.output
    assert server.requests.entries(on="upload") == []


def answer_when_asked(choice: str, asked: list[str]) -> None:
    """Answer the question of the task `approve` as the web UI does, and store its text."""
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from airflow.api_fastapi.core_api.datamodels.hitl import UpdateHITLDetailPayload
    from airflow.api_fastapi.core_api.routes.public.hitl import update_hitl_detail
    from airflow.models.hitl import HITLDetail
    from airflow.utils.session import create_session
    from sqlalchemy import select

    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        with create_session() as session:
            for detail in session.scalars(select(HITLDetail).where(HITLDetail.responded_at.is_(None))):
                task = detail.task_instance
                if str(task.state) == "awaiting_input":
                    asked.append(str(detail.body))
                    payload = UpdateHITLDetailPayload(chosen_options=[choice])
                    user = SimpleAuthManagerUser(username="operator", role="admin")
                    update_hitl_detail(task.dag_id, task.run_id, task.task_id, payload, user, session)
                    return
        time.sleep(0.2)


@pytest.mark.parametrize(("choice", "state", "uploads"), [("Approve", "success", 1), ("Reject", "skipped", 0)])
def test_approve_answer_decides_about_the_submission(
    run_pipeline: RunPipeline,
    folder: Callable[..., Path],
    server: PracticeServer,
    keys: None,
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
    state: str,
    uploads: int,
) -> None:
    monkeypatch.setenv("NUMERAI_APPROVE_SUBMISSIONS", "true")
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mixed=ensemble_selection")
    asked: list[str] = []
    approver = threading.Thread(target=answer_when_asked, args=(choice, asked), daemon=True)
    approver.start()
    outcome = run_pipeline(folder(), source="practice", models=["svm"], submit=True)
    approver.join(timeout=10)
    assert (outcome.state, str(outcome.tasks["submit"].state)) == ("success", state)
    assert len(server.requests.entries(on="upload")) == uploads
    predictions = find_predictions(RunLayout(outcome.directory), "ensemble_selection")
    assert f"| mixed | ensemble_selection | {predictions.sha256[:12]} |" in asked[0]
    assert f"/numerai/leaderboard/?round={NUMBER}&run={outcome.directory.name}" in asked[0]


def test_approve_without_submission_is_skipped(
    run_pipeline: RunPipeline, folder: Callable[..., Path], server: PracticeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMERAI_APPROVE_SUBMISSIONS", "true")
    monkeypatch.setenv("NUMERAI_SUBMISSIONS", "mine=svm")
    outcome = run_pipeline(folder("svm"), source="practice")
    states = {name: str(instance.state) for name, instance in outcome.tasks.items()}
    assert (outcome.state, states["approve"], states["submit"]) == ("success", "skipped", "skipped")


def test_week_of_five_rounds_is_fitted_once_and_submitted_five_times(
    run_pipeline: RunPipeline,
    folder: Callable[..., Path],
    server: PracticeServer,
    season: MovingSeason,
    keys: None,
) -> None:
    """Saturday fits; Tuesday to Friday, when the week's data is the same, only predict."""
    images, fits, rounds = folder(), [], []
    for number in range(NUMBER, NUMBER + 5):
        season.clock = SeasonRound(number).opens + timedelta(hours=1)
        server.requests.clear()
        outcome = run_pipeline(images, source="practice", submit=True)
        assert outcome.state == "success", outcome.output
        result = outcome.tasks["submit"].xcom_pull(task_ids="submit")
        assert {record["status"] for record in result["submissions"].values()} == {"on-time"}
        rounds.append(result["round"])
        fits.append({name: outcome.tasks[name].xcom_pull(task_ids=name)["fit"] for name in ("svm", "xgboost")})
        assert ("final fit" in outcome.output) == (number == NUMBER)
        downloaded = {Path(str(entry["name"])).name for entry in server.requests.entries(on="file")}
        assert (downloaded == {"live.parquet"}) == (number != NUMBER)
    assert rounds == list(range(NUMBER, NUMBER + 5))
    assert fits == [fits[0]] * 5
    for model in server.store.models():
        assert sorted(each.round for each in server.store.submissions(model.id)) == rounds
