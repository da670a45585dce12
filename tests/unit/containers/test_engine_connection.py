"""The engine's address and certificates, from the variables of Docker's client; and the labels of containers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from numerai_pipeline.containers.engine_connection import DEFAULT_URL, EngineConnection
from numerai_pipeline.containers.labels import ContainerLabels


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, EngineConnection(DEFAULT_URL)),
        ({"DOCKER_HOST": "", "DOCKER_TLS_VERIFY": "", "DOCKER_CERT_PATH": ""}, EngineConnection(DEFAULT_URL)),
        ({"DOCKER_HOST": "tcp://a:2375"}, EngineConnection("tcp://a:2375")),
        (
            {"DOCKER_HOST": "tcp://a:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certificates"},
            EngineConnection("tcp://a:2376", Path("/certificates"), verify=True),
        ),
        ({"DOCKER_TLS_VERIFY": "1"}, EngineConnection(DEFAULT_URL, Path.home() / ".docker", verify=True)),
        ({"DOCKER_CERT_PATH": "/c"}, EngineConnection(DEFAULT_URL, Path("/c"), verify=False)),
    ],
)
def test_from_environment_reads_dockers_variables(environment: dict[str, str], expected: EngineConnection) -> None:
    assert EngineConnection.from_environment(environment) == expected


def test_certificate_file_without_tls_is_none() -> None:
    assert EngineConnection().certificate_file("ca.pem") is None


def test_container_labels_round_trip() -> None:
    labels = ContainerLabels("volume", "deployment", "dag", "run", "svm", attempt=2, key="0123")
    assert ContainerLabels.from_dict(labels.to_dict()) == labels
    # the containers of the task in all runs: another run may make the same result
    assert labels.filters() == ["numerai=volume", "numerai.task=svm"]
    assert labels.is_same_task_instance(replace(labels, attempt=1, key="4567"))
    assert not labels.is_same_task_instance(replace(labels, run="another"))


def test_container_labels_of_another_deployment_are_not_this_ones() -> None:
    labels = ContainerLabels("volume", "deployment", "dag", "run", "svm")
    other, former = replace(labels, deployment="another"), replace(labels, deployment="")
    assert [each.is_of_deployment("deployment") for each in (labels, other, former)] == [True, False, True]
    assert [labels.is_same_task_instance(each) for each in (labels, other, former)] == [True, False, True]


def test_container_labels_missing_labels_are_empty() -> None:
    assert ContainerLabels.from_dict({"numerai": "volume"}) == ContainerLabels("volume", "", "", "", "")
