"""GPUs of a task: no part of its results' keys; in a swarm, a number of generic resources that a node must offer."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from numerai_pipeline.containers.backend import ContainerRequest
from numerai_pipeline.containers.labels import ContainerLabels
from numerai_pipeline.containers.swarm_api import largest_number_of_gpus
from numerai_pipeline.containers.swarm_backend import _require_gpus, _resources
from numerai_pipeline.containers.workspace import Workspace
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.dag.model_operator import contract_environment
from numerai_pipeline.models.registry import load_registry
from tests.samples import ROOT


def named(*ids: str) -> list[dict[str, Any]]:
    return [{"NamedResourceSpec": {"Kind": "NVIDIA-GPU", "Value": each}} for each in ids]


def swarm_of(*nodes: tuple[str, list[dict[str, Any]] | None]) -> Any:
    """A manager with these nodes: availability and generic resources of each, as the engine's API describes them."""
    sizes = {"NanoCPUs": 4 * 10**9, "MemoryBytes": 2**34}
    described = [
        {
            "Status": {"State": "ready"},
            "Spec": {"Availability": availability},
            "Description": {"Resources": sizes | ({} if resources is None else {"GenericResources": resources})},
        }
        for availability, resources in nodes
    ]
    return SimpleNamespace(nodes=lambda: described)


def request_of(gpus: int | Literal["all"]) -> ContainerRequest:
    return ContainerRequest(
        image="an-image",
        environment={},
        mounts=[],
        workspace=Workspace(Path("/nowhere/svm/0123"), {}),
        labels=ContainerLabels("volume", "deployment", "dag", "run", "svm", attempt=1, key="0123"),
        user="1000:1000",
        failure_log=Path("/nowhere/failure.log"),
        time_limit=timedelta(minutes=1),
        memory=512,
        cores=1,
        gpus=gpus,
    )


def test_gpus_change_no_variable_of_the_container_and_so_no_key() -> None:
    spec = load_registry(ROOT / "model_images").tasks["wide_and_deep"]
    assert contract_environment(replace(spec, gpus=1), 2) == contract_environment(spec, 2)


def test_largest_number_of_gpus_is_that_of_one_active_node() -> None:
    counted = [{"DiscreteResourceSpec": {"Kind": "NVIDIA-GPU", "Value": 3}}]
    other = [{"DiscreteResourceSpec": {"Kind": "SSD", "Value": 9}}]
    assert largest_number_of_gpus(swarm_of(("active", None))) == 0
    assert (
        largest_number_of_gpus(swarm_of(("active", named("a")), ("active", named("b", "c")), ("drain", counted))) == 2
    )
    assert largest_number_of_gpus(swarm_of(("active", [*counted, *other]), ("active", named("a")))) == 3


def test_swarm_service_reserves_its_gpus() -> None:
    swarm = swarm_of(("active", named("a", "b")))
    _require_gpus(swarm, request_of(2))
    reserved = _resources(swarm, request_of(2))["Reservations"]
    assert reserved["GenericResources"] == [{"DiscreteResourceSpec": {"Kind": "NVIDIA-GPU", "Value": 2}}]
    assert "GenericResources" not in _resources(swarm, request_of(0))["Reservations"]


@pytest.mark.parametrize(
    ("gpus", "message"),
    [
        (2, "svm: models.yaml sets `gpus: 2`, but the nodes of the swarm have at most 1: list the GPUs"),
        ("all", "`gpus: all`, and a swarm reserves a number of GPUs only: set the number that one node has"),
    ],
)
def test_swarm_without_the_gpus_is_an_error_at_once(gpus: int | Literal["all"], message: str) -> None:
    with pytest.raises(BadInputError, match=message):
        _require_gpus(swarm_of(("active", named("a"))), request_of(gpus))
