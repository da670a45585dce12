"""The data volume as Airflow finds it from inside a container, on a real engine."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import docker
import pytest

from tests.samples import ROOT

pytestmark = pytest.mark.containers

LIBRARIES = ("docker", "pydantic-settings")
SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module")
def airflows_image(engine: docker.DockerClient) -> str:
    """Build a stand-in for Airflow's own image: Python and the libraries that finding the volume takes."""
    requirements = " ".join(f"{library}=={version(library)}" for library in LIBRARIES)
    image, _ = engine.images.build(
        path=str(Path(__file__).parent / "inside"),
        buildargs={"REQUIREMENTS": requirements},
        tag="numerai-tests-inside",
        rm=True,
        forcerm=True,
    )
    return str(image.id)


@pytest.fixture
def named_volume(engine: docker.DockerClient) -> Iterator[str]:
    volume = engine.volumes.create(f"numerai-tests-{uuid.uuid4().hex[:8]}")
    yield volume.name
    volume.remove()


def run_inside(engine: docker.DockerClient, image: str, data: str, **settings: str) -> list[str]:
    output: bytes = engine.containers.run(
        image,
        ["python", "/tests/share.py"],
        volumes=[
            f"{data}:/opt/numerai",
            f"{SOCKET}:{SOCKET}",
            f"{ROOT / 'plugins'}:/plugins:ro",
            f"{Path(__file__).parent / 'inside'}:/tests:ro",
        ],
        environment={"PYTHONPATH": "/plugins", "NUMERAI_DATA_DIR": "/opt/numerai", **settings},
        remove=True,
        stderr=True,
    )
    return output.decode().splitlines()


def test_a_bind_is_found_by_itself(engine: docker.DockerClient, airflows_image: str, tmp_path: Path) -> None:
    assert run_inside(engine, airflows_image, str(tmp_path)) == [str(tmp_path), "seen by both"]


def test_a_named_volume_is_found_by_itself(engine: docker.DockerClient, airflows_image: str, named_volume: str) -> None:
    path, message = run_inside(engine, airflows_image, named_volume)
    assert path == engine.volumes.get(named_volume).attrs["Mountpoint"]
    assert message == "seen by both"


def test_a_setting_overrides_what_is_found(engine: docker.DockerClient, airflows_image: str, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    lines = run_inside(engine, airflows_image, str(tmp_path / "real"), NUMERAI_DATA_DIR_ON_HOST=f"{tmp_path}/./real")
    assert lines[-1] == "seen by both"


def test_a_folder_that_is_not_shared_is_refused(engine: docker.DockerClient, airflows_image: str) -> None:
    with pytest.raises(docker.errors.ContainerError, match="/opt/elsewhere is not on a volume of Airflow"):
        run_inside(engine, airflows_image, "/srv/unused", NUMERAI_DATA_DIR="/opt/elsewhere")
