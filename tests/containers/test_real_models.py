"""The whole pipeline with its real models: a round of the practice season, and a real classic archive."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import yaml

from numerai_pipeline.model_registry import load_registry
from numerai_pipeline.run_layout import RunLayout
from numerai_pipeline.settings import load_settings
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running
from tests.containers.conftest import Outcome
from tests.samples import FLEMING, ROOT

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("all_images")]

FAST = ("svm", "xgboost", "wide_and_deep")
SEARCHES = ("auto_sklearn", "auto_weka", "tpot")
FEW_DIFFERENT = (*SEARCHES, "ensemble_selection")
BRANCH = tuple(name for name in FLEMING if name not in SEARCHES)
RunPipeline = Callable[..., Outcome]
# 16 weeks after the simulator's first round: there are weeks whose 60-day targets are known
TODAY = datetime(2026, 12, 5, 13, tzinfo=UTC)


@pytest.fixture(scope="module")
def all_images(model_image: Callable[[str], str]) -> None:
    for name in load_registry(ROOT / "model_images").images:
        model_image(name)


@pytest.fixture
def hasty_images(tmp_path: Path) -> Path:
    """The real images under a registry of rough maps and short searches: here they need to be there, not to be good."""
    directory = tmp_path / "model_images"
    shutil.copytree(ROOT / "model_images", directory)
    registry = yaml.safe_load((directory / "models.yaml").read_text())
    hastily = {
        "tsne": {"ITERATIONS": 50},
        "auto_sklearn": {"RUN_LIMIT": 3},
        "auto_weka": {"RUN_LIMIT": 2},
        "tpot": {"RUN_LIMIT": 4},
    }
    for name, parameters in hastily.items():
        registry["tasks"][name].setdefault("parameters", {}).update(parameters)
    (directory / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    return directory


@pytest.fixture
def practice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    size = SeasonSize(rows_per_era=60, train_eras=20, validation_eras=12, small=8, medium=10, all_features=12)
    with running(Season(tmp_path / "season", size, seed=5, today=TODAY)) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        yield server


def assert_predictions_are_whole(layout: RunLayout, model: str) -> None:
    with layout.predictions(model).open() as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == pq.read_table(layout.tournament, columns=["id"])["id"].to_pylist()
    assert all(0 < float(row["prediction"]) < 1 for row in rows)
    # what a search settles on may be a small tree, with few different predictions, and a selection of one model alone
    # is that model's ranks within each era
    assert len({row["prediction"] for row in rows}) > (1 if model in FEW_DIFFERENT else len(rows) / 10)


def test_a_practice_round(run_pipeline: RunPipeline, practice: PracticeServer) -> None:
    outcome = run_pipeline(source="practice", models=list(FAST))
    assert outcome.state == "success"
    layout = RunLayout(outcome.directory)
    for model in FAST:
        assert_predictions_are_whole(layout, model)
        report = json.loads(layout.report(model).read_text())
        assert report["features"] == 8
        assert 0.6 < report["validation"]["logloss"] < 0.8
    assert json.loads(layout.run_metadata.read_text())["target"] == "target_ender_60"  # the round's paid target
    leaderboard = json.loads(layout.leaderboard.read_text())
    ensembles = {"ensemble_geometric_mean", "ensemble_selection"}
    assert {row["model"] for row in leaderboard["models"] if row["kind"] != "reference"} == {*FAST, *ensembles}
    assert "example_predictions" in {row["model"] for row in leaderboard["models"] if row["kind"] == "reference"}
    for row in leaderboard["models"]:
        # the practice season has a meta model, beside which a constant adds nothing
        assert (row["mmc"] == 0) == (row["model"] == "constant_half"), row
        assert row["mmc"] is not None
        evaluation = json.loads(layout.evaluation(row["model"]).read_text())
        assert evaluation["corr"] == row["corr"]
        assert len(evaluation["by_era"]) == leaderboard["eras"] > 0
    for name in ensembles:
        assert_predictions_are_whole(layout, name)
    assert "started container" not in run_pipeline(source="practice", models=list(FAST)).output


def test_a_week_that_is_over_is_predicted_from_what_was_known_then(
    run_pipeline: RunPipeline, practice: PracticeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = practice.season.current_round().number - 65  # 13 weeks ago, the last week with known targets
    era = SeasonRound(number).era
    outcome = run_pipeline(source="practice", models=["svm"], round=number)
    assert outcome.state == "success"
    layout = RunLayout(outcome.directory)
    predictions = layout.predictions("svm").read_bytes()
    assert layout.directory.parent.name == str(number)
    assert set(pq.read_table(layout.tournament)["era"].to_pylist()) == {f"{era:04d}"}
    assert_predictions_are_whole(layout, "svm")
    targets = pq.read_table(layout.targets)
    assert len(set(targets["target"].to_pylist())) == 5
    facts = json.loads(layout.run_metadata.read_text())
    assert (facts["era"], facts["known_until"]) == (era, f"{era - 17:04d}")
    # whatever happened after the week, it predicts the same
    validation = practice.season.file("v5.3/validation.parquet", practice.season.current_round().number)
    table = pq.read_table(validation)
    later = pc.greater(table["era"], f"{era - 17:04d}")
    for column in (name for name in table.column_names if name.startswith("target")):
        wrong = pc.if_else(later, pa.scalar(1.0, pa.float32()), table[column])
        table = table.set_column(table.column_names.index(column), table.schema.field(column), wrong)
    pq.write_table(table, validation)
    monkeypatch.setenv("NUMERAI_DATA_DIR", str(tmp_path / "poisoned"))
    load_settings.cache_clear()
    outcome = run_pipeline(source="practice", models=["svm"], round=number)
    poisoned = RunLayout(tmp_path / "poisoned" / outcome.directory.relative_to(tmp_path / "data"))
    assert set(pq.read_table(poisoned.targets)["target"].to_pylist()) == {1.0}
    assert poisoned.predictions("svm").read_bytes() == predictions


def test_a_picked_model_brings_along_what_it_needs(
    run_pipeline: RunPipeline, practice: PracticeServer, hasty_images: Path
) -> None:
    outcome = run_pipeline(hasty_images, source="practice", models=["logistic_regression"])
    assert outcome.state == "success"
    states = {name: str(instance.state) for name, instance in outcome.tasks.items()}
    ran = {"wait_for_round", "download", "unzip", "adversarial_validation", "tsne", "logistic_regression"}
    ran |= {"ensemble", "evaluate", "leaderboard", "exploring"}
    assert {name for name, state in states.items() if state == "success"} == ran
    assert {state for name, state in states.items() if name not in ran} == {"skipped"}
    layout = RunLayout(outcome.directory)
    assert_predictions_are_whole(layout, "logistic_regression")
    split = pq.read_table(layout.directory / "split.parquet")["split"].to_pylist()
    assert split.count("validation") == round(len(split) / 10)
    report = json.loads(layout.report("logistic_regression").read_text())
    assert report["split"]["rows"] <= split.count("validation")


def test_the_knobs_reach_the_data(run_pipeline: RunPipeline, practice: PracticeServer) -> None:
    outcome = run_pipeline(
        source="practice", feature_set="medium", target="target_ender_20", every_nth_era=4, models=["xgboost"], seed=7
    )
    assert outcome.state == "success"
    report = json.loads(RunLayout(outcome.directory).report("xgboost").read_text())
    assert (report["features"], report["seed"]) == (10, 7)
    training = pq.read_table(RunLayout(outcome.directory).training)
    eras = sorted({int(era) for era in training["era"].to_pylist()})
    assert eras == list(range(eras[0], eras[0] + 20, 4))


@pytest.mark.parametrize(
    ("choice", "says"),
    [
        ({"feature_set": "tiny"}, "feature set 'tiny' does not exist: choose one of small (8)"),
        ({"target": "target_nobody"}, "target 'target_nobody' does not exist: choose one of target, "),
        ({"version": "v1.0"}, "v1.0"),
        ({"round": 3, "walk_forward": False}, "round 3"),
        ({"round": 3}, "do not have era"),
    ],
)
def test_a_wrong_choice_fails_the_first_task_that_can_know(
    run_pipeline: RunPipeline, practice: PracticeServer, choice: dict[str, object], says: str
) -> None:
    outcome = run_pipeline(source="practice", retries=3, **choice)
    assert outcome.state == "failed"
    assert max(instance.try_number for instance in outcome.tasks.values()) == 1
    assert says in outcome.output


@pytest.mark.timeout(1200)
def test_real_data_of_2017(run_pipeline: RunPipeline, real_archive: Path, hasty_images: Path) -> None:
    outcome = run_pipeline(hasty_images, source="archive", archive=str(real_archive), automl_minutes=1)
    assert outcome.state == "success"
    verdict = outcome.tasks["exploring"].xcom_pull(task_ids="exploring")
    for model in (*FAST, *SEARCHES, *BRANCH):
        assert_predictions_are_whole(RunLayout(outcome.directory), model)
        summary = verdict["models"][model]
        assert summary["rows"] == 2354
        # far too few rows to rank models by, but a model much worse or much better than a coin would be suspicious
        worst = 0.700 if model in ("svm", "xgboost") else 0.75
        assert 0.68 < summary["logloss"] < worst
        assert 0 < summary["consistency"] <= 1
