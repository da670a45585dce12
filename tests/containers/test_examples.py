"""The steps of ``docs/guides/add-a-model.md``: an example is copied, built, part of the DAG, and predicts."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from launcher.console import Screen
from launcher.docker_cli import Docker
from launcher.images import ModelImages
from launcher.processes import Commands
from numerai_pipeline.models.registry import load_registry
from numerai_pipeline.storage.layout import RunLayout
from tests.containers.conftest import LIVE_IDS, Outcome
from tests.samples import ROOT

pytestmark = [pytest.mark.containers, pytest.mark.usefixtures("classic_image")]

RunPipeline = Callable[..., Outcome]


def entries_of_the_page() -> dict[str, dict[str, Any]]:
    """Read the YAML blocks of the page, merged."""
    page = (ROOT / "docs" / "guides" / "add-a-model.md").read_text()
    merged: dict[str, dict[str, Any]] = {"images": {}, "tasks": {}}
    for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL):
        for key, entries in yaml.safe_load(block).items():
            merged[key] |= entries
    return merged


def with_example(name: str, folder: Path) -> Path:
    """Copy an example into a copy of the model images, add its entry, and build it as `make images` does."""
    images = folder / "model_images"
    shutil.copytree(ROOT / "model_images", images)
    shutil.copytree(ROOT / "docs" / "examples" / name, images / name)
    page = entries_of_the_page()
    registry = yaml.safe_load((images / "models.yaml").read_text())
    registry["images"][name] = page["images"].get(name, {"description": "An example."})
    registry["tasks"][name] = page["tasks"][name]
    (images / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    with Screen(Console(quiet=True)).step("Model images") as step:
        ModelImages(
            Docker(Commands()), images, {name: load_registry(images).images[name].python}, folder / "logs"
        ).build(step)
    return images


@pytest.mark.parametrize("name", ["random_forest", "of_2018"])
def test_example_is_part_of_the_pipeline_and_predicts(
    name: str, run_pipeline: RunPipeline, archive: Path, tmp_path: Path
) -> None:
    images = with_example(name, tmp_path)
    outcome = run_pipeline(images, source="archive", archive=str(archive), models=[name])
    assert outcome.state == "success", outcome.output[-4000:]
    assert str(outcome.tasks[name].state) == "success"
    assert name in outcome.dag.task_dict["exploring"].upstream_task_ids
    summary = outcome.tasks["exploring"].xcom_pull(task_ids="exploring")
    assert summary["models"][name]["rows"] == len(LIVE_IDS)
    assert RunLayout(outcome.directory).validation_predictions(name).is_file()


def test_examples_have_the_documented_length() -> None:
    code = (ROOT / "docs/examples/random_forest/random_forest_operation.py").read_text().split('"""', 2)[2]
    assert len([line for line in code.splitlines() if line.strip()]) <= 40
    old = [*(ROOT / "docs/examples/of_2018").iterdir()]
    assert sum(len([line for line in path.read_text().splitlines() if line.strip()]) for path in old) <= 10
