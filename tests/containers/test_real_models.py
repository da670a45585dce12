"""The whole pipeline with its real models: a round of the simulated tournament, and a real classic archive."""

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

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import DatasetLayout, RunLayout
from practice.model import SeasonSize
from practice.rounds import SeasonRound
from practice.season import Season
from practice.server import PracticeServer, running
from tests.containers.conftest import Outcome
from tests.samples import FLEMING, ROOT

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("all_images")]

FAST = ("svm", "xgboost", "lightgbm", "wide_and_deep")
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
def quick_images(tmp_path: Path) -> Path:
    """The real images with rough embeddings and short searches: these tests require results, not good results."""
    directory = tmp_path / "model_images"
    shutil.copytree(ROOT / "model_images", directory)
    registry = yaml.safe_load((directory / "models.yaml").read_text())
    quickly = {
        "tsne": {"ITERATIONS": 50},
        "auto_sklearn": {"RUN_LIMIT": 3},
        "auto_weka": {"RUN_LIMIT": 2},
        "tpot": {"RUN_LIMIT": 4},
    }
    for name, parameters in quickly.items():
        registry["tasks"][name].setdefault("parameters", {}).update(parameters)
    (directory / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    return directory


@pytest.fixture
def practice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PracticeServer]:
    size = SeasonSize(rows_per_era=60, train_eras=20, validation_eras=12, small=8, medium=10, all_features=12)
    with running(Season(tmp_path / "season", size, seed=5, today=TODAY)) as server:
        monkeypatch.setenv("NUMERAI_PRACTICE_URL", server.address)
        yield server


def dataset_of(layout: RunLayout) -> DatasetLayout:
    return layout.data.dataset(json.loads(layout.run_metadata.read_text())["dataset"])


def assert_predictions_are_complete(layout: RunLayout, model: str) -> None:
    for predictions, table in (
        (layout.predictions(model), layout.live),
        (layout.validation_predictions(model), dataset_of(layout).validation),
    ):
        with predictions.open() as file:
            rows = list(csv.DictReader(file))
        assert [row["id"] for row in rows] == pq.read_table(table, columns=["id"])["id"].to_pylist()
        assert all(0 < float(row["prediction"]) < 1 for row in rows)
        # a search may end with a small tree, which has few different predictions, and a selection of one model only has
        # the ranks of that model within each era
        assert len({row["prediction"] for row in rows}) > (1 if model in FEW_DIFFERENT else len(rows) / 10)


def test_simulated_round_has_predictions_and_leaderboard(run_pipeline: RunPipeline, practice: PracticeServer) -> None:
    outcome = run_pipeline(source="practice", models=list(FAST))
    assert outcome.state == "success"
    layout = RunLayout(outcome.directory)
    for model in FAST:
        assert_predictions_are_complete(layout, model)
        report = json.loads(layout.report(model).read_text())
        assert report["features"] == 8
        assert 0.6 < report["validation"]["logloss"] < 0.8
    assert json.loads(layout.run_metadata.read_text())["target"] == "target_ender_60"  # the payout target
    leaderboard = json.loads(layout.leaderboard.read_text())
    assert (leaderboard["sorted_by"], leaderboard["benchmark"]) == ("payout", "v53_lgbm_ender60")
    ensembles = {f"ensemble_{name}" for name in ("geometric_mean", "fleming", "selection", "gauss_rank")}
    assert {row["model"] for row in leaderboard["models"] if row["kind"] != "reference"} == {*FAST, *ensembles}
    assert "example_predictions" in {row["model"] for row in leaderboard["models"] if row["kind"] == "reference"}
    for row in leaderboard["models"]:
        # the simulated tournament has a meta model, to which a constant contributes nothing
        assert (row["mmc"] == 0) == (row["model"] == "constant_half"), row
        assert row["mmc"] is not None
        evaluation = json.loads(layout.evaluation(row["model"]).read_text())
        assert evaluation["corr"] == row["corr"]
        assert len(evaluation["by_era"]) == leaderboard["eras"] > 0
    for name in ensembles:
        assert_predictions_are_complete(layout, name)
    assert "started container" not in run_pipeline(source="practice", models=list(FAST)).output


def test_walk_forward_round_does_not_depend_on_later_targets(
    run_pipeline: RunPipeline, practice: PracticeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = practice.season.current_round().number - 65  # 13 weeks ago, the last week with known targets
    era = SeasonRound(number).era
    outcome = run_pipeline(source="practice", models=["svm"], round=number)
    assert outcome.state == "success"
    layout = RunLayout(outcome.directory)
    predictions = layout.predictions("svm").read_bytes()
    assert layout.directory.parent.name == str(number)
    assert set(pq.read_table(layout.live)["era"].to_pylist()) == {f"{era:04d}"}
    assert_predictions_are_complete(layout, "svm")
    targets = pq.read_table(layout.targets)
    assert len(set(targets["target"].to_pylist())) == 5
    facts = json.loads(layout.run_metadata.read_text())
    assert (facts["era"], facts["known_until"]) == (era, f"{era - 17:04d}")
    # later targets do not change the predictions
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


def test_selected_model_runs_with_its_upstream_tasks_only(
    run_pipeline: RunPipeline, practice: PracticeServer, quick_images: Path
) -> None:
    outcome = run_pipeline(quick_images, source="practice", models=["logistic_regression"])
    assert outcome.state == "success"
    states = {name: str(instance.state) for name, instance in outcome.tasks.items()}
    ran = {"wait_for_round", "download", "unzip", "adversarial_validation", "tsne", "logistic_regression"}
    ran |= {"models_ended", "model_succeeded", "ensemble", "evaluate", "leaderboard", "exploring"}
    assert {name for name, state in states.items() if state == "success"} == ran
    assert {state for name, state in states.items() if name not in ran} == {"skipped"}
    layout = RunLayout(outcome.directory)
    assert_predictions_are_complete(layout, "logistic_regression")
    split = pq.read_table(layout.directory / "split.parquet")["split"].to_pylist()
    assert split.count("validation") == round(len(split) / 10)
    report = json.loads(layout.report("logistic_regression").read_text())
    assert report["split"]["rows"] <= split.count("validation")


def test_run_parameters_determine_features_eras_and_seed(run_pipeline: RunPipeline, practice: PracticeServer) -> None:
    outcome = run_pipeline(
        source="practice", feature_set="medium", target="target_ender_20", every_nth_era=4, models=["xgboost"], seed=7
    )
    assert outcome.state == "success"
    report = json.loads(RunLayout(outcome.directory).report("xgboost").read_text())
    assert (report["features"], report["seed"]) == (10, 7)
    training = pq.read_table(dataset_of(RunLayout(outcome.directory)).training)
    eras = sorted({int(era) for era in training["era"].to_pylist()})
    assert eras == list(range(eras[0], eras[0] + 20, 4))


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"feature_set": "tiny"}, "feature set 'tiny' does not exist: choose one of small (8)"),
        ({"target": "target_unknown"}, "target 'target_unknown' does not exist: choose one of target, "),
        ({"version": "v1.0"}, "v1.0"),
        ({"round": 3, "walk_forward": False}, "round 3"),
        ({"round": 3}, "do not have era"),
    ],
)
def test_wrong_parameter_fails_the_first_task_that_uses_it(
    run_pipeline: RunPipeline, practice: PracticeServer, parameters: dict[str, object], message: str
) -> None:
    outcome = run_pipeline(source="practice", retries=3, **parameters)
    assert outcome.state == "failed"
    assert max(instance.try_number for instance in outcome.tasks.values()) == 1
    assert message in outcome.output


@pytest.mark.timeout(1200)
def test_archive_of_2017_all_models_predict(run_pipeline: RunPipeline, real_archive: Path, quick_images: Path) -> None:
    outcome = run_pipeline(quick_images, source="archive", archive=str(real_archive), automl_minutes=1)
    assert outcome.state == "success"
    run_summary = outcome.tasks["exploring"].xcom_pull(task_ids="exploring")
    live_rows = pq.read_metadata(RunLayout(outcome.directory).live).num_rows
    for model in (*FAST, *SEARCHES, *BRANCH):
        assert_predictions_are_complete(RunLayout(outcome.directory), model)
        summary = run_summary["models"][model]
        assert summary["rows"] == live_rows
        # too few rows to rank models, but a model much worse or much better than chance would be an error
        worst = 0.700 if model in ("svm", "xgboost", "lightgbm") else 0.75
        assert 0.68 < summary["logloss"] < worst
        assert 0 < summary["consistency"] <= 1
