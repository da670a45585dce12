from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from numerai_pipeline.errors import BadInputError
from numerai_pipeline.model_registry import load_registry
from tests.samples import FLEMING, INDEPENDENT, ROOT, task

if TYPE_CHECKING:
    from collections.abc import Callable


def one(entry: dict[str, object]) -> dict[str, object]:
    return {"images": {"classic": {"about": "x"}}, "tasks": {"svm": entry}}


def test_the_projects_own_registry_is_right() -> None:
    registry = load_registry(ROOT / "model_images")
    assert {"svm", "xgboost"} <= set(registry.models)


def test_an_entry_becomes_a_spec(images_folder: Callable[..., Path]) -> None:
    entry = task(operation="svc", memory=1024, cores=2, parameters={"ROW_LIMIT": 5000, "FAST": True})
    spec = load_registry(images_folder(one(entry))).tasks["svm"]
    assert spec.operation == "svc"
    assert spec.pool_slots == 2
    assert spec.needs == ("unzip",)
    assert spec.parameters == {"ROW_LIMIT": "5000", "FAST": "true"}


def test_order_groups_and_models(images_folder: Callable[..., Path], whole_registry: dict[str, object]) -> None:
    registry = load_registry(images_folder(whole_registry))
    order = list(registry.tasks)
    assert order.index("adversarial_validation") < order.index("tsne") < order.index("tpot")
    assert set(registry.models) == {*INDEPENDENT, *FLEMING}
    assert registry.groups == ("fleming",)


def test_a_preparation_serves_every_model_that_needs_it(
    images_folder: Callable[..., Path], whole_registry: dict[str, object]
) -> None:
    registry = load_registry(images_folder(whole_registry))
    assert registry.served_by("adversarial_validation") == set(FLEMING)
    assert registry.served_by("tsne") == set(FLEMING)
    assert registry.served_by("svm") == {"svm"}


def test_what_comes_before_leaves_files_for_what_comes_after(
    images_folder: Callable[..., Path], whole_registry: dict[str, Any]
) -> None:
    whole_registry["tasks"]["adversarial_validation"]["leaves"] = ["split.parquet"]
    whole_registry["tasks"]["tsne"]["leaves"] = ["tsne/perplexity_05.parquet"]
    registry = load_registry(images_folder(whole_registry))
    assert registry.left_before("tpot") == ("split.parquet", "tsne/perplexity_05.parquet")
    assert registry.left_before("tsne") == ("split.parquet",)
    assert registry.left_before("svm") == ()


def test_what_needs_all_models_comes_after_them_and_serves_them(
    images_folder: Callable[..., Path], whole_registry: dict[str, Any]
) -> None:
    entries = {
        "evaluate": task(predicts=False, needs=["models", "ensemble"], may_read=["targets.parquet"]),
        "ensemble": task(predicts=False, needs=["models"], leaves=["predictions/ensemble_mean.csv"]),
    }
    whole_registry["tasks"]["tsne"]["leaves"] = ["tsne/perplexity_05.parquet"]
    whole_registry["tasks"] = {**entries, **whole_registry["tasks"]}
    registry = load_registry(images_folder(whole_registry))
    assert list(registry.tasks)[-2:] == ["ensemble", "evaluate"]
    assert registry.after_models == ("ensemble", "evaluate")
    assert set(registry.models) == {*INDEPENDENT, *FLEMING}
    assert set(registry.upstream("evaluate")) == {*INDEPENDENT, *FLEMING, "ensemble"}
    assert registry.upstream("svm") == ("unzip",)
    assert registry.served_by("evaluate") == {*INDEPENDENT, *FLEMING}
    assert registry.served_by("svm") == {"svm"}
    assert registry.left_before("evaluate") == ("predictions/ensemble_mean.csv", "tsne/perplexity_05.parquet")
    assert registry.tasks["evaluate"].may_read == ("targets.parquet",)


@pytest.mark.parametrize(
    ("registry", "says"),
    [
        ("tasks: [", "is not YAML"),
        ("", "is not of type 'object'"),
        ({"images": {"classic": {"about": "x"}}}, "'tasks' is a required property"),
        (one(task(memroy=1)), "tasks.svm: unknown key 'memroy'; there are: about, cores, group"),
        (one(task(leaves=["split.parquet"])), "tasks.svm.leaves: only a preparation leaves files for later tasks"),
        (one(task(leaves=["../split.parquet"])), "tasks.svm.leaves.0: '../split.parquet' does not match"),
        (one(task(memory="4g")), "tasks.svm.memory: '4g' is not of type 'integer'"),
        (one(task(time_limit=0)), "tasks.svm.time_limit: 0 is less than the minimum of 1"),
        (one({"image": "classic"}), "tasks.svm: 'about' is a required property"),
        (one(task(image="clasic")), "tasks.svm.image: there is no image 'clasic'; there are: classic"),
        (one(task(needs=["tnse"])), "tasks.svm.needs: there is no task 'tnse'; there are: unzip, svm"),
        (one(task(needs=["svm"])), "in a circle: svm -> svm"),
        (
            one(task(needs=["models"])),
            "tasks.svm.needs: what comes after all models cannot be one of them; set predicts",
        ),
        (
            {
                "images": {"classic": {"about": "x"}},
                "tasks": {"svm": task(needs=["mean"]), "mean": task(needs=["models"], predicts=False)},
            },
            "in a circle",
        ),
        (
            {"images": {"classic": {"about": "x"}}, "tasks": {"ensemble_of_trees": task()}},
            "tasks.ensemble_of_trees: predictions called ensemble_… are ensembles",
        ),
        (one(task(parameters={"SEED": 1})), "tasks.svm.parameters: SEED is set by the pipeline itself"),
        (
            {
                "images": {"classic": {"about": "x"}},
                "tasks": {"a": task(needs=["b"]), "b": task(needs=["c"]), "c": task(needs=["a"])},
            },
            "in a circle",
        ),
        (
            {"images": {"classic": {"about": "x"}}, "tasks": {"exploring": task()}},
            "tasks.exploring: the name belongs to a step of the pipeline",
        ),
        (
            {"images": {"classic": {"about": "x"}, "exotic": {"about": "y"}}, "tasks": {"svm": task()}},
            "images.exotic: there is no exotic/Dockerfile",
        ),
    ],
)
def test_a_mistake_names_file_entry_and_remedy(
    images_folder: Callable[..., Path], registry: dict[str, object] | str, says: str
) -> None:
    directory = images_folder(registry)
    with pytest.raises(BadInputError) as caught:
        load_registry(directory)
    assert says in str(caught.value)
    assert str(directory / "models.yaml") in str(caught.value)


def test_a_missing_registry_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="NUMERAI_IMAGES_DIR"):
        load_registry(tmp_path)


def test_a_search_gets_its_own_minutes_on_top(images_folder: Callable[..., Path]) -> None:
    spec = load_registry(images_folder(one(task(search_parts=4)))).tasks["svm"]
    assert spec.minutes(10) == 5 + 25
    assert load_registry(images_folder(one(task()))).tasks["svm"].minutes(10) == 5
