"""A house of the suite's own: Airflow, Docker engine, archive server, and somebody who watches."""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import docker
import pytest
import yaml

from numerai_pipeline.model_images import image_reference
from tests.faults.airflow_rig import DAG, OwnAirflow
from tests.faults.download_server import DownloadServer
from tests.faults.engine import OwnEngine
from tests.faults.scenario import TASKS, House
from tests.faults.table import Table
from tests.faults.watch import Watch
from tests.samples import task

IDS = [f"n{number:04d}" for number in range(200)]
TICKS = "25"


def an_archive() -> bytes:
    """Make a zip of the classic layout whose unpacking takes a moment."""
    generator = random.Random(5)
    features = [f"feature{number}" for number in range(1, 21)]

    def table(ids: list[str], kind: str, eras: int) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["id", "era", "data_type", *features, "target"])
        for number, row_id in enumerate(ids):
            values = [round(generator.random(), 5) for _ in features]
            writer.writerow([row_id, f"era{number % eras + 1}", kind, *values, number % 2])
        return text.getvalue()

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        zipped.writestr("numerai_training_data.csv", table([f"t{number}" for number in range(20_000)], "train", 20))
        zipped.writestr("numerai_tournament_data.csv", table(IDS, "validation", 4))
    return content.getvalue()


def a_registry() -> dict[str, object]:
    """Draw the tasks of a run, one of each kind."""

    def parameters(**more: str) -> dict[str, str]:
        return {"IDS": ",".join(IDS), "TICKS": TICKS, **more}

    return {
        "images": {"toy": {"about": "A toy that takes its time."}},
        "tasks": {
            "tsne": task(
                image="toy", predicts=False, leaves=["tsne/map.txt"], parameters=parameters(LEAVES="tsne/map.txt")
            ),
            "tpot": task(image="toy", needs=["tsne"], parameters=parameters()),
            "evaluate": task(
                image="toy",
                predicts=False,
                needs=["models"],
                leaves=["scores.txt"],
                parameters=parameters(LEAVES="scores.txt"),
            ),
        },
    }


@pytest.fixture(scope="session")
def folder() -> Iterator[Path]:
    place = Path(tempfile.mkdtemp(prefix="faults-airflow-"))
    place.chmod(0o755)
    yield place
    if not os.environ.get("FAULTS_KEEP"):
        shutil.rmtree(place, ignore_errors=True)


@pytest.fixture(scope="session")
def images(engine: docker.DockerClient, folder: Path) -> Path:
    """Build the toy; returns the folder of images."""
    directory = folder / "model_images"
    shutil.copytree(Path(__file__).parent / "toy", directory / "toy")
    (directory / "models.yaml").write_text(yaml.safe_dump(a_registry(), sort_keys=False))
    engine.images.build(
        path=str(directory), dockerfile="toy/Dockerfile", tag=image_reference(directory, "toy"), rm=True, forcerm=True
    )
    return directory


@pytest.fixture(scope="session")
def house(folder: Path, images: Path) -> Iterator[House]:
    engine = OwnEngine()
    stock_data = folder / "stock"
    stock_data.mkdir(mode=0o777)
    image = image_reference(images, "toy")
    airflow = OwnAirflow(
        folder,
        {
            "DOCKER_HOST": engine.address,
            "NUMERAI_IMAGES_DIR": str(images),
            "NUMERAI_POOL": "default_pool",
            "FAULTS_IMAGE": image,
            "FAULTS_STOCK_DATA": str(stock_data),
        },
    )
    try:
        engine.start()
        engine.load(image)
        airflow.start()
        with DownloadServer(an_archive()).serving() as server, Watch(engine) as watch:
            yield House(airflow, engine, server, watch)
    finally:
        airflow.end(9)
        engine.close()


@pytest.fixture(scope="session")
def undisturbed(house: House) -> dict[str, bytes]:
    """Let a run go through in peace; gives what it left."""
    house.forget()
    house.airflow.trigger(DAG, "undisturbed", house.conf())
    assert house.airflow.end_of_run(DAG, "undisturbed") == "success"
    assert house.left_behind() == []
    results = house.results()
    assert len(results) == len(TASKS)
    return results


@pytest.fixture(scope="session")
def table() -> Iterator[Table]:
    """Gather what became of each fault; written into the documentation when all of them were played."""
    found = Table()
    yield found
    found.write()
