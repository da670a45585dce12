"""The registry of models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.models.registry import load_registry
from tests.samples import FLEMING, INDEPENDENT, ROOT, task

if TYPE_CHECKING:
    from collections.abc import Callable


def one(entry: dict[str, object]) -> dict[str, object]:
    return {"images": {"classic": {"description": "x"}}, "tasks": {"svm": entry}}


def test_load_registry_of_the_project_has_its_models() -> None:
    registry = load_registry(ROOT / "model_images")
    assert {"svm", "xgboost"} <= set(registry.models)


def test_load_registry_entry_becomes_a_model_spec(images_folder: Callable[..., Path]) -> None:
    entry = task(operation="svc", memory=1024, cores=2, parameters={"ROW_LIMIT": 5000, "FAST": True})
    spec = load_registry(images_folder(one(entry))).tasks["svm"]
    assert spec.operation == "svc"
    assert (spec.cores_of(8), spec.slots_of(8)) == (2, 2)
    assert spec.depends_on == ("unzip",)
    assert spec.parameters == {"ROW_LIMIT": "5000", "FAST": "true"}


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ("1/4", [1, 1, 1, 2, 8]),
        ("1/2", [1, 1, 2, 4, 16]),
        ("3/4", [1, 2, 3, 6, 24]),
        ("1/1", [1, 2, 4, 8, 32]),
        (2, [1, 2, 2, 2, 2]),
        (256, [1, 2, 4, 8, 32]),
    ],
)
def test_cores_of_machine_is_a_share_or_a_number(
    images_folder: Callable[..., Path], cores: str | int, expected: list[int]
) -> None:
    spec = load_registry(images_folder(one(task(cores=cores)))).tasks["svm"]
    assert [spec.cores_of(available) for available in (1, 2, 4, 8, 32)] == expected
    assert [spec.slots_of(available) for available in (1, 2, 4, 8, 32)] == expected
    fewer = load_registry(images_folder(one(task(cores=cores, pool_slots=3)))).tasks["svm"]
    assert [fewer.slots_of(available) for available in (1, 2, 4, 8, 32)] == [1, 2, 3, 3, 3]


@pytest.mark.parametrize(("entry", "gpus"), [({}, 0), ({"gpus": 2}, 2), ({"gpus": "all"}, "all")])
def test_gpus_are_a_number_or_all(images_folder: Callable[..., Path], entry: dict[str, object], gpus: object) -> None:
    assert load_registry(images_folder(one(task(**entry)))).tasks["svm"].gpus == gpus


@pytest.mark.parametrize("gpus", ["two", -1, True, 1.5])
def test_wrong_gpus_name_the_entry_and_the_possible_values(images_folder: Callable[..., Path], gpus: object) -> None:
    with pytest.raises(BadInputError, match=r"models.yaml: tasks.svm.gpus: .* is neither a number of GPUs, such as 1"):
        load_registry(images_folder(one(task(gpus=gpus))))


def test_no_task_of_the_project_needs_a_gpu() -> None:
    assert {spec.gpus for spec in load_registry(ROOT / "model_images")} == {0}


def test_project_tasks_on_two_cores_share_them() -> None:
    registry = load_registry(ROOT / "model_images")
    alone = {"adversarial_validation", "tsne", "auto_weka", "auto_sklearn", "tpot", "ensemble", "evaluate"}
    assert {spec.name: spec.cores_of(2) for spec in registry} == {
        spec.name: 2 if spec.name in alone else 1 for spec in registry
    }
    assert registry.tasks["xgboost"].cores_of(32) == 16


def test_load_registry_orders_tasks_by_their_dependencies(
    images_folder: Callable[..., Path], whole_registry: dict[str, object]
) -> None:
    registry = load_registry(images_folder(whole_registry))
    order = list(registry.tasks)
    assert order.index("adversarial_validation") < order.index("tsne") < order.index("tpot")
    assert set(registry.models) == {*INDEPENDENT, *FLEMING}
    assert registry.groups == ("fleming",)


def test_dependent_models_includes_indirect_dependencies(
    images_folder: Callable[..., Path], whole_registry: dict[str, object]
) -> None:
    registry = load_registry(images_folder(whole_registry))
    assert registry.dependent_models("adversarial_validation") == set(FLEMING)
    assert registry.dependent_models("tsne") == set(FLEMING)
    assert registry.dependent_models("svm") == {"svm"}


def test_preprocessing_includes_indirect_dependencies(
    images_folder: Callable[..., Path], whole_registry: dict[str, Any]
) -> None:
    registry = load_registry(images_folder(whole_registry))
    assert registry.preprocessing("tpot") == ("adversarial_validation", "tsne")
    assert registry.preprocessing("tsne") == ("adversarial_validation",)
    assert registry.preprocessing("svm") == ()


def test_predictions_are_of_models_and_of_live_outputs(
    images_folder: Callable[..., Path], whole_registry: dict[str, Any]
) -> None:
    whole_registry["tasks"]["tsne"]["live_outputs"] = ["live/tsne/map.csv"]
    whole_registry["tasks"]["ensemble"] = task(
        predicts=False,
        depends_on=["models"],
        outputs=["validation/ensemble_mean.csv"],
        live_outputs=["predictions/ensemble_mean.csv"],
    )
    registry = load_registry(images_folder(whole_registry))
    assert registry.predictions == (*registry.models, "ensemble_mean")


@pytest.mark.parametrize(
    ("entry", "keeps_model", "reads_live_rows"),
    [
        ({}, False, True),
        ({"keeps_model": True}, True, True),
        ({"predicts": False, "keeps_model": True, "outputs": ["split.parquet"]}, True, False),
        ({"predicts": False, "keeps_model": True, "live_outputs": ["live/map.csv"]}, True, True),
    ],
)
def test_spec_keeps_its_model_and_reads_live_rows(
    images_folder: Callable[..., Path], entry: dict[str, Any], keeps_model: bool, reads_live_rows: bool
) -> None:
    spec = load_registry(images_folder(one(task(**entry)))).tasks["svm"]
    assert (spec.keeps_model, spec.reads_live_rows) == (keeps_model, reads_live_rows)


def test_load_registry_post_processing_follows_the_models(
    images_folder: Callable[..., Path], whole_registry: dict[str, Any]
) -> None:
    entries = {
        "evaluate": task(predicts=False, depends_on=["models", "ensemble"], optional_inputs=["targets.parquet"]),
        "ensemble": task(predicts=False, depends_on=["models"], live_outputs=["predictions/ensemble_mean.csv"]),
    }
    whole_registry["tasks"] = {**entries, **whole_registry["tasks"]}
    registry = load_registry(images_folder(whole_registry))
    assert list(registry.tasks)[-2:] == ["ensemble", "evaluate"]
    assert registry.post_processing == ("ensemble", "evaluate")
    assert set(registry.models) == {*INDEPENDENT, *FLEMING}
    assert set(registry.upstream("evaluate")) == {*INDEPENDENT, *FLEMING, "ensemble"}
    assert registry.upstream("svm") == ("unzip",)
    assert registry.dependent_models("evaluate") == {*INDEPENDENT, *FLEMING}
    assert registry.dependent_models("svm") == {"svm"}
    assert registry.tasks["evaluate"].optional_inputs == ("targets.parquet",)


def test_load_registry_deprecated_keys_are_accepted_with_a_warning(images_folder: Callable[..., Path]) -> None:
    tasks = {
        "tsne": task(predicts=False, leaves=["tsne/map.txt"]),
        "svm": task(needs=["tsne"], may_read=["targets.parquet"]),
    }
    tasks["svm"]["about"] = tasks["svm"].pop("description")
    with pytest.warns(FutureWarning) as caught:
        registry = load_registry(images_folder({"images": {"classic": {"about": "x"}}, "tasks": tasks}))
    svm = registry.tasks["svm"]
    assert (svm.description, svm.depends_on, svm.optional_inputs) == ("A test.", ("tsne",), ("targets.parquet",))
    assert registry.tasks["tsne"].outputs == ("tsne/map.txt",)
    assert registry.images["classic"].description == "x"
    messages = {str(warning.message).partition(": ")[2] for warning in caught}
    assert messages == {
        "images.classic.about is deprecated: rename the key to 'description'",
        "tasks.tsne.leaves is deprecated: rename the key to 'outputs'",
        "tasks.svm.about is deprecated: rename the key to 'description'",
        "tasks.svm.needs is deprecated: rename the key to 'depends_on'",
        "tasks.svm.may_read is deprecated: rename the key to 'optional_inputs'",
    }


@pytest.mark.parametrize(
    ("registry", "says"),
    [
        ("tasks: [", "is not YAML"),
        ("", "is not of type 'object'"),
        ({"images": {"classic": {"description": "x"}}}, "'tasks' is a required property"),
        (one(task(memroy=1)), "tasks.svm: unknown key 'memroy'; allowed: cores, depends_on, desc"),
        (one(task(outputs=["split.parquet"])), "tasks.svm.outputs: a model has no further outputs; set"),
        (one(task(outputs=["../split.parquet"])), "tasks.svm.outputs.0: '../split.parquet' does not match"),
        (one(task(live_outputs=["live/map.csv"])), "tasks.svm.outputs: a model has no further outputs; set"),
        (
            one(task(keeps_model=True, tables="csv")),
            "tasks.svm.tables: an image that keeps its model reads parquet tables; remove one of the two keys",
        ),
        (one(task(keeps_model="yes")), "tasks.svm.keeps_model: 'yes' is not of type 'boolean'"),
        *(
            (one(task(parameters={name: 1})), f"tasks.svm.parameters: {name} is set by the pipeline; remove it")
            for name in ("MODEL", "VALIDATION", "TARGET_DAYS", "EMBARGO", "PAYOUT", "BENCHMARK", "INPUTS")
        ),
        (one(task(memory="4g")), "tasks.svm.memory: '4g' is not of type 'integer'"),
        *(
            (
                one(task(cores=cores)),
                f"tasks.svm.cores: {cores!r} is neither a number of cores, such as 2, nor a share, such as 1/2",
            )
            for cores in ("half", "0/4", "1/0", "2", 0, 0.5)
        ),
        (one(task(cores="3/2")), "tasks.svm.cores: 3/2 is more than all cores; the largest share is 1/1"),
        (one(task(time_limit=0)), "tasks.svm.time_limit: 0 is less than the minimum of 1"),
        (one({"image": "classic"}), "tasks.svm: 'description' is a required property"),
        (one(task(image="clasic")), "tasks.svm.image: unknown image 'clasic'; available: classic"),
        (one(task(depends_on=["tnse"])), "tasks.svm.depends_on: unknown task 'tnse'; available: unzip, svm"),
        (one(task(depends_on=["svm"])), "in a cycle: svm -> svm"),
        (
            one(task(depends_on=["models"])),
            "tasks.svm.depends_on: a task that depends on 'models' cannot be a model; set predicts: false",
        ),
        (
            {
                "images": {"classic": {"description": "x"}},
                "tasks": {"svm": task(depends_on=["mean"]), "mean": task(depends_on=["models"], predicts=False)},
            },
            "in a cycle",
        ),
        (
            {"images": {"classic": {"description": "x"}}, "tasks": {"ensemble_of_trees": task()}},
            "tasks.ensemble_of_trees: the prefix ensemble_ is reserved for ensembles",
        ),
        (one(task(parameters={"SEED": 1})), "tasks.svm.parameters: SEED is set by the pipeline; remove it"),
        (
            {
                "images": {"classic": {"description": "x"}},
                "tasks": {"a": task(depends_on=["b"]), "b": task(depends_on=["c"]), "c": task(depends_on=["a"])},
            },
            "in a cycle",
        ),
        (
            {"images": {"classic": {"description": "x"}}, "tasks": {"exploring": task()}},
            "tasks.exploring: the name is reserved for a task of the pipeline",
        ),
        (
            {"images": {"classic": {"description": "x"}, "exotic": {"description": "y"}}, "tasks": {"svm": task()}},
            "images.exotic: exotic/Dockerfile is missing beside it",
        ),
    ],
)
def test_load_registry_mistake_names_file_entry_and_remedy(
    images_folder: Callable[..., Path], registry: dict[str, object] | str, says: str
) -> None:
    directory = images_folder(registry)
    with pytest.raises(BadInputError) as caught:
        load_registry(directory)
    assert says in str(caught.value)
    assert str(directory / "models.yaml") in str(caught.value)


def test_load_registry_missing_names_the_setting(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="NUMERAI_IMAGES_DIR"):
        load_registry(tmp_path)


@pytest.mark.parametrize(
    "entry", [{}, {"keeps_model": True, "predicts": False}, {"keeps_model": True, "search_parts": 4}]
)
def test_load_registry_several_targets_are_for_models_with_a_fit(
    images_folder: Callable[..., Path], entry: dict[str, object]
) -> None:
    with pytest.raises(BadInputError, match="several_targets: only for a model with keeps_model, and not for a search"):
        load_registry(images_folder(one(task(several_targets=True, **entry))))


def test_minutes_are_those_of_each_target_that_is_learned(images_folder: Callable[..., Path]) -> None:
    several = load_registry(images_folder(one(task(keeps_model=True, several_targets=True)))).tasks["svm"]
    assert [several.minutes(10, further) for further in (0, 2)] == [5, 15]
    assert load_registry(images_folder(one(task(keeps_model=True)))).tasks["svm"].minutes(10, 2) == 5


def test_minutes_of_a_search_are_added_to_the_limit(images_folder: Callable[..., Path]) -> None:
    spec = load_registry(images_folder(one(task(search_parts=4)))).tasks["svm"]
    assert spec.minutes(10) == 5 + 35
    assert load_registry(images_folder(one(task()))).tasks["svm"].minutes(10) == 5
