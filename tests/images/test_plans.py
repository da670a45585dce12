"""The plans of all operations at the tournament's sizes, in their images, with the limits of ``models.yaml``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import docker
import pytest

from numerai_pipeline.models.registry import ModelSpec, load_registry
from tests.images.conftest import Runner, run_program
from tests.samples import ROOT

pytestmark = pytest.mark.containers

REGISTRY = load_registry(ROOT / "model_images")
# training and validation rows: v5.3, the archive of 2017-12, the practice season, a first run without validation rows
ROWS = ((2_750_000, 4_110_000), (96_320, 16_686), (15_000, 10_000), (15_000, 0))
FEATURES = (42, 780, 3_555)
# fewer rows teach nothing about effects as weak as Numerai's
LEAST_ROWS = 50_000


class Planned(NamedTuple):
    """A plan, and the sizes that it was made for."""

    operation: str
    available: int
    of_features: int
    rows: int
    features: int
    memory: float


def planned_tasks(image: str) -> list[ModelSpec]:
    """List the tasks of an image with a plan: those after all models need all rows of all predictions."""
    return [spec for spec in REGISTRY if spec.image == image and not spec.is_post_processing]


def planned(engine: docker.DockerClient, name: str, directory: Path, image: str) -> list[Planned]:
    """Plan every operation of an image."""
    cases: list[dict[str, Any]] = [
        {
            "operation": spec.operation,
            "environment": spec.parameters
            | {"MEMORY_LIMIT": str(spec.memory), "THREADS": "2", "SEED": "1", "TIME_LIMIT": "600"},
            "sizes": [(rows, features) for rows in ROWS for features in FEATURES],
        }
        for spec in planned_tasks(image)
    ]
    runner = Runner(engine, name, directory / image)
    try:
        return [Planned(*plan) for plan in run_program(runner, "all_plans.py", PLANNED=json.dumps(cases))]
    finally:
        runner.close()


@pytest.mark.parametrize("image", [name for name in REGISTRY.images if planned_tasks(name)])
def test_plans_fit_the_memory_and_keep_enough_rows(
    engine: docker.DockerClient, model_image: Callable[[str], str], tmp_path: Path, image: str
) -> None:
    plans = planned(engine, model_image(image), tmp_path, image)
    specs = {spec.operation: spec for spec in planned_tasks(image)}
    assert {plan.operation for plan in plans} == set(specs)
    for plan in plans:
        assert plan.memory <= specs[plan.operation].memory, plan
        assert min(LEAST_ROWS, plan.available) <= plan.rows <= plan.available, plan
        assert min(40, plan.of_features) <= plan.features <= plan.of_features, plan
