"""The keys of a task's results, and the fits that a run may use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from numerai_pipeline.containers.task_plan import RunFiles, TaskPlan, TaskPlanner
from numerai_pipeline.core.errors import BadInputError, NotFoundError
from numerai_pipeline.models.registry import Registry, load_registry
from numerai_pipeline.storage.layout import DataLayout
from numerai_pipeline.storage.manifests import manifest_path
from numerai_pipeline.storage.task_records import Fallback
from tests.samples import payout, task
from tests.unit.containers.planned_run import IMAGE, add_dataset, add_result, finish, new_run, record

ENVIRONMENT = {"OPERATION": "svm", "SEED": "67"}


@pytest.fixture
def data(tmp_path: Path) -> DataLayout:
    layout = DataLayout(tmp_path / "volume")
    for number, key in enumerate(("older", "old", "new")):
        add_dataset(layout, key, str(1290 + 5 * number))
    return layout


@pytest.fixture
def registry(images_folder: Callable[..., Path]) -> Registry:
    keeps: dict[str, Any] = {"keeps_model": True}
    tasks = {
        "svm": task(**keeps),
        "xgboost": task(several_targets=True, **keeps),
        "of_2018": task(tables="csv"),
        "trains_always": task(),
        "adversarial_validation": task(predicts=False, outputs=["split.parquet"], **keeps),
        "tsne": task(
            predicts=False,
            depends_on=["adversarial_validation"],
            outputs=["tsne/map.csv"],
            live_outputs=["live/tsne/map.csv"],
            **keeps,
        ),
        "tpot": task(depends_on=["tsne"], **keeps),
        "ensemble": task(
            predicts=False,
            depends_on=["models"],
            outputs=["validation/ensemble_mean.csv"],
            live_outputs=["predictions/ensemble_mean.csv"],
            **keeps,
        ),
        "evaluate": task(
            predicts=False,
            depends_on=["models", "ensemble"],
            outputs=["leaderboard.json"],
            optional_inputs=["targets.parquet", "meta_model.parquet"],
            **keeps,
        ),
    }
    return load_registry(images_folder({"images": {"classic": {"description": "x"}}, "tasks": tasks}))


Plan = Callable[..., TaskPlan]


@pytest.fixture
def plan(registry: Registry) -> Plan:
    def make(
        run: RunFiles, name: str = "svm", image: str = IMAGE, forced: bool = False, **environment: str
    ) -> TaskPlan:
        return TaskPlanner(registry.tasks[name], registry).plan(
            run, image, {**ENVIRONMENT, **environment}, forced=forced
        )

    return make


def keys(made: TaskPlan) -> tuple[str, str | None]:
    return made.fit_key, made.prediction_key


def test_plan_equal_runs_have_equal_keys(data: DataLayout, plan: Plan) -> None:
    assert keys(plan(new_run(data, "one"))) == keys(plan(new_run(data, "two")))
    assert keys(plan(new_run(data, "one"), "trains_always")) == keys(plan(new_run(data, "two"), "trains_always"))


@pytest.mark.parametrize(
    ("of_run", "of_task"),
    [
        ({"dataset": "old"}, {}),
        ({}, {"image": "numerai-classic:2"}),
        ({}, {"SEED": "68"}),
        ({}, {"C": "1"}),
        ({}, {"forced": True}),
    ],
)
def test_plan_other_settings_have_other_keys(
    data: DataLayout, plan: Plan, of_run: dict[str, Any], of_task: dict[str, Any]
) -> None:
    one, two = plan(new_run(data, "one")), plan(new_run(data, "two", **of_run), **of_task)
    assert set(keys(one)).isdisjoint(keys(two))


@pytest.mark.parametrize("change", [{"payout": payout(60)}, {"benchmark": "v53_lgbm_ender60"}], ids=str)
def test_plan_scoring_is_in_the_keys_of_post_processing_only(
    data: DataLayout, plan: Plan, change: dict[str, Any]
) -> None:
    one, two = new_run(data, "one"), new_run(data, "two", **change)
    for run in (one, two):
        record(run, "svm", fit="f", prediction="p")
    assert keys(plan(one)) == keys(plan(two))
    assert plan(two).scoring == {}
    for name in ("ensemble", "evaluate"):
        assert plan(one, name).fit_key != plan(two, name).fit_key
        assert plan(two, name).scoring == two.metadata.scoring


def test_plan_other_number_of_threads_has_the_same_keys(data: DataLayout, plan: Plan) -> None:
    one, two = plan(new_run(data, "one"), THREADS="2"), plan(new_run(data, "two"), THREADS="32")
    assert keys(one) == keys(two)


def test_plan_further_targets_are_learned_by_entries_that_take_them(data: DataLayout, plan: Plan) -> None:
    add_dataset(data, "several", targets=("target_b", "target_c"))
    run = new_run(data, dataset="several")
    several, one = plan(run, "xgboost"), plan(run, "svm")
    assert (several.further_targets, one.further_targets) == (("target_b", "target_c"), ())
    assert (several.keeps_parts, one.keeps_parts) == (True, False)
    assert several.fit_inputs["targets"] == ["target_b", "target_c"]
    assert "targets" not in one.fit_inputs


def test_plan_without_further_targets_is_the_same_for_entries_that_take_them(data: DataLayout, plan: Plan) -> None:
    run = new_run(data)
    several, one = plan(run, "xgboost"), plan(run, "svm")
    assert several.fit_key == one.fit_key
    assert (several.further_targets, several.keeps_parts) == ((), False)
    assert plan(run, "adversarial_validation").keeps_parts, "it continues with its finished files"


def test_plan_new_live_rows_change_the_prediction_only(data: DataLayout, plan: Plan) -> None:
    one, two = plan(new_run(data, "one")), plan(new_run(data, "two", live_sha256="others"))
    assert one.fit_key == two.fit_key
    assert one.prediction_key != two.prediction_key


@pytest.mark.parametrize("name", ["trains_always", "of_2018"])
def test_plan_new_live_rows_change_the_result_of_an_image_of_2018(data: DataLayout, plan: Plan, name: str) -> None:
    one, two = plan(new_run(data, "one"), name), plan(new_run(data, "two", live_sha256="others"), name)
    assert one.fit_key == one.prediction_key
    assert one.fit_key != two.fit_key


def test_plan_fits_of_upstream_tasks_change_the_key(data: DataLayout, plan: Plan) -> None:
    made = []
    for number, (split, maps) in enumerate((("a1", "t1"), ("a2", "t1"), ("a1", "t2"))):
        run = new_run(data, f"run-{number}")
        record(run, "adversarial_validation", split, None)
        record(run, "tsne", maps, "placed")
        made.append(plan(run, "tpot").fit_key)
    assert len(set(made)) == len(made)


def test_plan_predictions_of_upstream_tasks_change_the_prediction_only(data: DataLayout, plan: Plan) -> None:
    made = []
    for placed in ("p1", "p2"):
        run = new_run(data, placed)
        record(run, "adversarial_validation", "a", None)
        record(run, "tsne", "t", placed)
        made.append(plan(run, "tpot"))
    assert made[0].fit_key == made[1].fit_key
    assert made[0].prediction_key != made[1].prediction_key


def test_plan_without_upstream_result_is_an_error(data: DataLayout, plan: Plan) -> None:
    with pytest.raises(BadInputError, match="`adversarial_validation` has no result in this run: clear"):
        plan(new_run(data), "tpot")
    with pytest.raises(BadInputError, match="ensemble: no model has a result in this run"):
        plan(new_run(data), "ensemble")


def test_plan_finished_results_are_used(data: DataLayout, plan: Plan) -> None:
    unfinished = plan(new_run(data, "one"))
    assert (unfinished.is_finished, unfinished.has_fit, unfinished.key) == (False, False, unfinished.fit_key)
    finish(data, unfinished, prediction=False)
    fitted = plan(new_run(data, "two"))
    assert (fitted.is_finished, fitted.has_fit, fitted.key) == (False, True, fitted.prediction_key)
    add_result(data, "svm", str(fitted.prediction_key), "prediction")
    assert plan(new_run(data, "three")).is_finished


def test_plan_preprocessing_without_live_outputs_has_no_prediction(data: DataLayout, plan: Plan) -> None:
    made = plan(new_run(data), "adversarial_validation")
    assert (made.prediction_key, made.has_prediction) == (None, True)
    finish(data, made)
    assert plan(new_run(data, live_sha256="others"), "adversarial_validation").is_finished


OLDER = ("old", "older")


def test_plan_prefers_the_newest_finished_fit(data: DataLayout, plan: Plan) -> None:
    for key in OLDER:
        finish(data, plan(new_run(data, key, dataset=key)))
    weekday = {"older_datasets": OLDER, "prefers_finished": True}
    assert plan(new_run(data, "one", **weekday)).dataset.key == "old"
    # a fit of the newest data is better, and a new one only on Saturday
    assert plan(new_run(data, "two", older_datasets=OLDER)).dataset.key == "new"
    finish(data, plan(new_run(data, "three")))
    assert plan(new_run(data, "four", **weekday)).dataset.key == "new"


def test_plan_without_finished_fit_makes_a_new_one(data: DataLayout, plan: Plan) -> None:
    made = plan(new_run(data, older_datasets=OLDER, prefers_finished=True))
    assert (made.dataset.key, made.has_fit) == ("new", False)


def test_plan_finished_fit_of_other_settings_is_not_used(data: DataLayout, plan: Plan) -> None:
    finish(data, plan(new_run(data, "one", dataset="old"), SEED="1"))
    assert not plan(new_run(data, "two", older_datasets=OLDER, prefers_finished=True)).has_fit


@pytest.mark.parametrize("forced", [False, True])
def test_plan_fit_never_without_fit_is_an_error(data: DataLayout, plan: Plan, forced: bool) -> None:
    run = new_run(data, older_datasets=OLDER, prefers_finished=True, may_fit=False)
    with pytest.raises(NotFoundError, match="svm: there is no finished fit of these settings, and fit=never forbids"):
        plan(run, forced=forced)


def test_plan_fit_never_uses_a_finished_fit(data: DataLayout, plan: Plan) -> None:
    finish(data, plan(new_run(data, "one", dataset="older")))
    run = new_run(data, "two", older_datasets=OLDER, prefers_finished=True, may_fit=False)
    assert (plan(run).dataset.key, plan(run).has_fit) == ("older", True)


def test_plan_follows_the_dataset_of_its_upstream_tasks(data: DataLayout, plan: Plan) -> None:
    run = new_run(data, older_datasets=OLDER, prefers_finished=True)
    record(run, "adversarial_validation", "a", None, dataset="old")
    record(run, "tsne", "t", "placed", dataset="old")
    made = plan(run, "tpot")
    assert made.dataset.key == "old"
    assert {each.task: each.fit for each in made.upstream} == {"adversarial_validation": "a", "tsne": "t"}


def test_plan_upstream_results_of_different_datasets_are_an_error(data: DataLayout, plan: Plan) -> None:
    run = new_run(data, older_datasets=OLDER)
    record(run, "adversarial_validation", "a", None, dataset="old")
    record(run, "tsne", "t", "placed", dataset="new")
    with pytest.raises(BadInputError, match="tpot: its upstream tasks have no results of one dataset"):
        plan(run, "tpot")


def test_fallback_uses_the_fallbacks_of_its_upstream_tasks(data: DataLayout, plan: Plan, registry: Registry) -> None:
    before = new_run(data, "before", dataset="old")
    record(before, "adversarial_validation", "a-old", None, dataset="old")
    record(before, "tsne", "t-old", "placed", dataset="old")
    finish(data, plan(before, "tpot"))
    run = new_run(data, "now", older_datasets=OLDER)
    record(run, "adversarial_validation", "a-new", None, fallback=Fallback("old", "a-old"))
    record(run, "tsne", "t-new", "placed", fallback=Fallback("old", "t-old", "placed-old"))
    planner = TaskPlanner(registry.tasks["tpot"], registry)
    fallback = planner.fallback(run, IMAGE, ENVIRONMENT)
    assert fallback is not None
    assert (fallback.dataset.key, fallback.fit_key) == ("old", plan(before, "tpot").fit_key)
    assert {each.prediction for each in fallback.upstream} == {None, "placed-old"}
    assert plan(run, "tpot").dataset.key == "new"
    assert TaskPlanner(registry.tasks["svm"], registry).fallback(run, IMAGE, ENVIRONMENT) is None
    assert TaskPlanner(registry.tasks["trains_always"], registry).fallback(run, IMAGE, ENVIRONMENT) is None


def test_plan_forced_keys_are_of_one_run_and_stable(data: DataLayout, plan: Plan) -> None:
    one, two = new_run(data, "one"), new_run(data, "two")
    forced = plan(one, forced=True)
    assert keys(forced) == keys(plan(one, forced=True))
    assert set(keys(forced)).isdisjoint({*keys(plan(two, forced=True)), *keys(plan(one))})
    # its second attempt uses the results of the first
    finish(data, forced)
    assert plan(one, forced=True).is_finished


def test_plan_post_processing_has_the_models_of_its_run_only(data: DataLayout, plan: Plan) -> None:
    both, one = new_run(data, "both"), new_run(data, "one")
    for run, models in ((both, ("svm", "tpot")), (one, ("svm",))):
        for model in models:
            record(run, model, f"{model}-fit", f"{model}-prediction")
    assert [each.task for each in plan(both, "ensemble").upstream] == ["svm", "tpot"]
    assert [each.task for each in plan(one, "ensemble").upstream] == ["svm"]
    assert plan(both, "ensemble").fit_key != plan(one, "ensemble").fit_key


def test_plan_post_processing_ignores_models_that_failed_since(data: DataLayout, plan: Plan) -> None:
    """Without an attempt of its own, as after a failure upstream, a model keeps the record of an earlier attempt."""
    run = new_run(data)
    for name in ("svm", "tpot"):
        record(run, name, f"{name}-fit", f"{name}-prediction")
    assert [each.task for each in plan(replace(run, failed=frozenset({"tpot"})), "ensemble").upstream] == ["svm"]


def test_plan_scores_of_live_rows_are_of_one_run(data: DataLayout, plan: Plan) -> None:
    live = [new_run(data, "one"), new_run(data, "two", live_sha256="others")]
    backtests = [new_run(data, "three"), new_run(data, "four", live_sha256="others")]
    for run in (*live, *backtests):
        record(run, "svm", "fit", run.metadata.live_sha256)
    for run in backtests:
        run.layout.targets.write_bytes(b"targets")
    assert plan(live[0], "evaluate").fit_key == plan(live[1], "evaluate").fit_key
    assert plan(backtests[0], "evaluate").fit_key != plan(backtests[1], "evaluate").fit_key
    assert plan(live[0], "evaluate").prediction_key is None


def test_inputs_of_a_fit_and_of_a_prediction(data: DataLayout, plan: Plan, registry: Registry) -> None:
    run = new_run(data)
    planner = TaskPlanner(registry.tasks["svm"], registry)
    to_fit = planner.inputs(plan(run), run)
    tables = {"training.parquet", "validation.parquet", "live.parquet"}
    assert set(to_fit) == tables | {f"{name}.manifest.json" for name in tables}
    assert to_fit["training.parquet"] == data.dataset("new").training
    assert to_fit["live.parquet"] == run.layout.live
    finish(data, plan(run), prediction=False)
    to_predict = planner.inputs(plan(run), run)
    assert set(to_predict) == {"live.parquet", "live.parquet.manifest.json", "model"}
    assert to_predict["model"] == data.result("svm", plan(run).fit_key)


def test_inputs_of_upstream_tasks_come_from_their_results(data: DataLayout, plan: Plan, registry: Registry) -> None:
    run = new_run(data)
    add_result(data, "adversarial_validation", "a", **{"split.parquet": "split"})
    add_result(data, "tsne", "t", tsne__map_csv="map")
    add_result(data, "tsne", "placed", "prediction", live__tsne__map_csv="placed")
    record(run, "adversarial_validation", "a", None)
    record(run, "tsne", "t", "placed")
    inputs = TaskPlanner(registry.tasks["tpot"], registry).inputs(plan(run, "tpot"), run)
    assert inputs["split.parquet"] == data.result("adversarial_validation", "a") / "split.parquet"
    assert inputs["tsne/map.csv"] == data.result("tsne", "t") / "tsne/map.csv"
    assert inputs["live/tsne/map.csv"] == data.result("tsne", "placed") / "live/tsne/map.csv"
    assert inputs["tsne/map.csv.manifest.json"] == manifest_path(inputs["tsne/map.csv"])


def test_inputs_of_a_prediction_are_no_files_of_upstream_fits(data: DataLayout, plan: Plan, registry: Registry) -> None:
    run = new_run(data)
    record(run, "adversarial_validation", "a", None)
    record(run, "tsne", "t", "placed")
    record(run, "svm", "s", "sp")
    record(run, "trains_always", "both", "both")
    for name in ("tpot", "ensemble"):
        finish(data, plan(run, name), prediction=False)
    made = {
        name: TaskPlanner(registry.tasks[name], registry).inputs(plan(run, name), run) for name in ("tpot", "ensemble")
    }
    assert set(made["tpot"]) >= {"live/tsne/map.csv", "model"}
    assert not {"split.parquet", "tsne/map.csv"} & set(made["tpot"])
    # an image that keeps no model has one result: its prediction is its fit
    both = {"predictions/trains_always.csv", "validation/trains_always.csv"}
    assert set(made["ensemble"]) >= both | {"predictions/svm.csv"}
    assert "validation/svm.csv" not in made["ensemble"]


def test_inputs_of_post_processing_are_the_predictions(data: DataLayout, plan: Plan, registry: Registry) -> None:
    run = new_run(data)
    record(run, "svm", "s", "sp")
    record(run, "trains_always", "both", "both")
    record(run, "ensemble", "e", "ep")
    inputs = TaskPlanner(registry.tasks["evaluate"], registry).inputs(plan(run, "evaluate"), run)
    assert inputs["validation/svm.csv"] == data.result("svm", "s") / "validation.csv"
    assert inputs["predictions/svm.csv"] == data.result("svm", "sp") / "predictions/svm.csv"
    assert inputs["validation/trains_always.csv"] == data.result("trains_always", "both") / "validation.csv"
    assert inputs["validation/ensemble_mean.csv"] == data.result("ensemble", "e") / "validation/ensemble_mean.csv"
    assert inputs["predictions/ensemble_mean.csv"] == data.result("ensemble", "ep") / "predictions/ensemble_mean.csv"
    assert "validation/tpot.csv" not in inputs
    assert "targets.parquet" not in inputs


def test_inputs_optional_ones_are_mounted_if_they_exist(data: DataLayout, plan: Plan, registry: Registry) -> None:
    add_result(data, "references", "r", **{"meta_model.parquet": "published"})
    run = new_run(data, references="r")
    record(run, "svm", "s", "sp")
    before = plan(run, "evaluate")
    planner = TaskPlanner(registry.tasks["evaluate"], registry)
    assert planner.inputs(before, run)["meta_model.parquet"] == data.result("references", "r") / "meta_model.parquet"
    run.layout.targets.write_bytes(b"targets")
    assert planner.inputs(plan(run, "evaluate"), run)["targets.parquet"] == run.layout.targets
    assert plan(run, "evaluate").fit_key != before.fit_key
    assert "targets.parquet" not in TaskPlanner(registry.tasks["svm"], registry).inputs(plan(run), run)


@pytest.mark.parametrize(("name", "suffix"), [("trains_always", "parquet"), ("of_2018", "csv")])
def test_inputs_of_an_image_of_2018_are_two_tables(
    data: DataLayout, plan: Plan, registry: Registry, name: str, suffix: str
) -> None:
    run = new_run(data)
    inputs = TaskPlanner(registry.tasks[name], registry).inputs(plan(run, name), run)
    tables = {f"training.{suffix}", f"tournament.{suffix}"}
    assert set(inputs) == tables | {f"{table}.manifest.json" for table in tables}
    assert all(path.is_file() for path in inputs.values())
