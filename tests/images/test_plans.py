"""The plans of all operations at the tournament's sizes, in their images, with the limits of ``models.yaml``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import docker
import pytest

from numerai_pipeline.models.registry import ModelSpec, load_registry
from tests.images.conftest import TOURNAMENT_ROWS, Runner, plan_case, run_plans
from tests.samples import ROOT

pytestmark = pytest.mark.containers

REGISTRY = load_registry(ROOT / "model_images")
# training and validation rows: v5.3, the archive of 2017-12, the practice season, a first run without validation rows
ROWS = (TOURNAMENT_ROWS, (96_320, 16_686), (15_000, 10_000), (15_000, 0))
# fewer rows teach nothing about effects as weak as Numerai's
LEAST_ROWS = 50_000


def planned_tasks(image: str) -> list[ModelSpec]:
    """List the tasks of an image with a plan: those after all models need all rows of all predictions."""
    return [spec for spec in REGISTRY if spec.image == image and not spec.is_post_processing]


@pytest.mark.parametrize("image", [name for name in REGISTRY.images if planned_tasks(name)])
def test_plans_fit_the_memory_and_keep_enough_rows(
    engine: docker.DockerClient, model_image: Callable[[str], str], tmp_path: Path, image: str
) -> None:
    specs = planned_tasks(image)
    fixed = {"THREADS": "2", "SEED": "1", "TIME_LIMIT": "600"}
    cases = [plan_case(spec.operation, spec.memory, ROWS, environment=spec.parameters | fixed) for spec in specs]
    runner = Runner(engine, model_image(image), tmp_path / image)
    try:
        plans = run_plans(runner, cases)
    finally:
        runner.close()
    assert {plan.operation for plan in plans} == {spec.operation for spec in specs}
    for plan in plans:
        assert plan.memory <= plan.limit, plan
        assert min(LEAST_ROWS, plan.available) <= plan.rows <= plan.available, plan
        assert min(40, plan.of_features) <= plan.features <= plan.of_features, plan
