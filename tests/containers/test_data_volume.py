"""The data volume as Airflow finds it from inside a container, on a real engine."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml

from numerai_pipeline.containers.check_data_volume import any_model_image, check_data_volume, main
from numerai_pipeline.core.errors import BadInputError
from numerai_pipeline.core.settings import Settings
from numerai_pipeline.models.images import image_reference
from numerai_pipeline.models.registry import load_registry
from tests.samples import ROOT, task

pytestmark = pytest.mark.containers

LIBRARIES = ("docker", "jsonschema", "pydantic-settings", "pyyaml")
SOCKET = "/var/run/docker.sock"


@pytest.fixture(scope="module")
def airflows_image(engine: docker.DockerClient) -> str:
    return build_airflows_image(engine)


def build_airflows_image(engine: docker.DockerClient) -> str:
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


SHARE = ("python", "/tests/share.py")
CHECK = ("python", "-m", "numerai_pipeline.containers.check_data_volume")


def run_inside(
    engine: docker.DockerClient,
    image: str,
    data: str,
    words: tuple[str, ...] = SHARE,
    images: Path | None = None,
    user: str = "0:0",
    **settings: str,
) -> list[str]:
    output: bytes = engine.containers.run(
        image,
        list(words),
        volumes=[
            f"{data}:/opt/numerai",
            f"{SOCKET}:{SOCKET}",
            f"{ROOT / 'plugins'}:/plugins:ro",
            f"{Path(__file__).parent / 'inside'}:/tests:ro",
            *([f"{images}:/images:ro"] if images else []),
        ],
        environment={
            "PYTHONPATH": "/plugins",
            "NUMERAI_DATA_DIR": "/opt/numerai",
            "NUMERAI_IMAGES_DIR": "/images",
            **settings,
        },
        user=user,
        group_add=[str(Path(SOCKET).stat().st_gid)],
        remove=True,
        stderr=True,
    )
    return output.decode().splitlines()


def test_data_volume_bind_mount_is_detected(engine: docker.DockerClient, airflows_image: str, tmp_path: Path) -> None:
    assert run_inside(engine, airflows_image, str(tmp_path)) == [str(tmp_path), "seen by both"]


def test_data_volume_named_volume_is_detected(
    engine: docker.DockerClient, airflows_image: str, named_volume: str
) -> None:
    path, message = run_inside(engine, airflows_image, named_volume)
    assert path == engine.volumes.get(named_volume).attrs["Mountpoint"]
    assert message == "seen by both"


def test_data_volume_setting_overrides_the_detection(
    engine: docker.DockerClient, airflows_image: str, tmp_path: Path
) -> None:
    (tmp_path / "real").mkdir()
    lines = run_inside(engine, airflows_image, str(tmp_path / "real"), NUMERAI_DATA_DIR_ON_HOST=f"{tmp_path}/./real")
    assert lines[-1] == "seen by both"


def test_data_volume_unshared_folder_is_rejected(engine: docker.DockerClient, airflows_image: str) -> None:
    with pytest.raises(docker.errors.ContainerError, match="/opt/elsewhere is not on a volume of Airflow"):
        run_inside(engine, airflows_image, "/srv/unused", NUMERAI_DATA_DIR="/opt/elsewhere")


@pytest.fixture
def toys(stub_images: Path, tmp_path: Path) -> Path:
    """A folder of images with the stub model as its only one, which every user may read."""
    images = tmp_path / "images"
    shutil.copytree(stub_images, images)
    registry = {"images": {"stub_model": {"description": "A stub."}}, "tasks": {"svm": task(image="stub_model")}}
    (images / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    return images


@pytest.fixture
def toy(toys: Path) -> str:
    return image_reference(toys, "stub_model")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "shared").mkdir()
    return tmp_path / "shared"


def refusal(settings: Settings, client: docker.APIClient, image: str) -> str:
    with pytest.raises(BadInputError) as refused:
        check_data_volume(settings, client, image)
    assert not list(settings.data_dir.glob(".check-*"))
    return str(refused.value)


def test_check_data_volume_shared_bind_of_airflows_user_passes(
    engine: docker.DockerClient, airflows_image: str, data: Path, toys: Path
) -> None:
    os.chown(data, 50000, 0)
    (message,) = run_inside(engine, airflows_image, str(data), CHECK, toys, user="50000:0")
    assert message.startswith(
        f"the data volume is shared: /opt/numerai for Airflow, {data} for the Docker engine at unix:"
    )
    assert "as user 50000:50000" in message
    assert [path.name for path in data.iterdir()] == [".installation"]


def test_check_data_volume_shared_named_volume_passes(
    engine: docker.DockerClient, airflows_image: str, named_volume: str, toys: Path
) -> None:
    (message,) = run_inside(engine, airflows_image, named_volume, CHECK, toys)
    assert f"/opt/numerai for Airflow, {engine.volumes.get(named_volume).attrs['Mountpoint']} for the Docker" in message
    assert "as user 10001:10001" in message


def test_check_data_volume_wrong_host_path_names_paths_and_setting(
    engine: docker.DockerClient, airflows_image: str, data: Path, toys: Path, tmp_path: Path
) -> None:
    (tmp_path / "another").mkdir()
    wrong = str(tmp_path / "another")
    with pytest.raises(docker.errors.ContainerError) as refused:
        run_inside(engine, airflows_image, str(data), CHECK, toys, NUMERAI_DATA_DIR_ON_HOST=wrong)
    assert refused.value.exit_status == 1
    message = str(refused.value)
    assert "It is /opt/numerai for Airflow (NUMERAI_DATA_DIR)" in message
    assert f"should be {wrong} for the Docker engine at unix:///var/run/docker.sock" in message
    assert f"(NUMERAI_DATA_DIR_ON_HOST is {wrong})" in message
    assert "the engine reports: " in message
    assert "bind source path does not exist" in message
    assert [path.name for path in data.iterdir()] == [".installation"]


def test_check_data_volume_other_folder_of_the_same_name_fails(
    engine: docker.DockerClient, data: Path, toy: str, tmp_path: Path
) -> None:
    """Both sides have the path, but it is not the same folder."""
    other = tmp_path / "another"
    settings = Settings(data_dir=data, data_dir_on_host=other)

    class Client(docker.APIClient):
        """Makes the folder that is to be mounted, empty, right before it is."""

        def create_container(self, *args: Any, **kwargs: Any) -> Any:
            for probe in data.glob(".check-*"):
                (other / probe.name).mkdir(parents=True)
                (other / probe.name).chmod(0o777)
            return super().create_container(*args, **kwargs)

    message = refusal(settings, Client(version="auto"), toy)
    assert f"It is {data} for Airflow" in message
    assert f"should be {other} for the Docker engine" in message
    assert "a container of user 10001:10001 failed: cat: /data/question: No such file or directory" in message


def test_check_data_volume_not_writable_by_containers_fails(
    engine: docker.DockerClient, airflows_image: str, data: Path, toys: Path
) -> None:
    os.chown(data, 1234, 1234)
    with pytest.raises(docker.errors.ContainerError) as refused:
        run_inside(engine, airflows_image, str(data), CHECK, toys, user="1234:1234", NUMERAI_CONTAINER_USER="4321")
    message = str(refused.value)
    assert "a container of user 4321:4321 failed: sh: 1: cannot create /data/answer: Permission denied" in message
    assert "give it to the containers' user (NUMERAI_CONTAINER_USER)" in message


def test_check_data_volume_not_writable_by_airflow_fails(engine: docker.DockerClient, data: Path, toy: str) -> None:
    (data / "file").touch()
    message = refusal(Settings(data_dir=data / "file"), engine.api, toy)
    assert f"Airflow (user {os.getuid()}) cannot write to its data directory {data / 'file'}: File exists" in message


def test_any_model_image_without_images_names_the_searched_ones(engine: docker.DockerClient, toys: Path) -> None:
    settings = Settings(image_registry="nowhere.example/")
    with pytest.raises(BadInputError, match=r"no model image is on the Docker engine .*searched for nowhere.example/"):
        any_model_image(load_registry(toys), settings, engine.api)


def test_check_data_volume_without_engine_names_its_address(toys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:9")
    monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(toys))
    with pytest.raises(
        SystemExit, match=r"FAILED: the Docker engine at tcp://127.0.0.1:9 \(DOCKER_HOST\) is unreachable"
    ):
        main()
