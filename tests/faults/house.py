"""A house to play faults in: Airflow, Docker engine, archive server, and somebody who watches; gone afterwards."""

from __future__ import annotations

import csv
import io
import os
import random
import shutil
import signal
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import yaml

from numerai_pipeline.model_images import image_reference
from tests.faults.airflow_rig import OwnAirflow
from tests.faults.download_server import DownloadServer
from tests.faults.engine import OwnEngine
from tests.faults.scenario import House
from tests.faults.watch import Watch
from tests.samples import task

IDS = [f"n{number:04d}" for number in range(200)]
TICKS = 25


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


def a_registry(ticks: int) -> dict[str, object]:
    """Draw the tasks of a run, one of each kind, which take so many tenths of a second."""

    def parameters(**more: str) -> dict[str, str | int]:
        return {"IDS": ",".join(IDS), "TICKS": ticks, **more}

    return {
        "images": {"toy": {"description": "A toy that takes its time."}},
        "tasks": {
            "tsne": task(
                image="toy", predicts=False, outputs=["tsne/map.txt"], parameters=parameters(LEAVES="tsne/map.txt")
            ),
            "tpot": task(image="toy", depends_on=["tsne"], parameters=parameters()),
            "evaluate": task(
                image="toy",
                predicts=False,
                depends_on=["models"],
                outputs=["scores.txt"],
                parameters=parameters(LEAVES="scores.txt"),
            ),
        },
    }


@contextmanager
def open_house(builder: docker.DockerClient, ticks: int = TICKS, instead: Path | None = None) -> Iterator[House]:
    """Build the toy with another engine, and open a house of its own for it.

    Parameters
    ----------
    builder : docker.DockerClient
        The engine that has the base image.
    ticks : int
        How many tenths of a second a container works.
    instead : Path, optional
        A DAG file to read in place of the pipeline's and of the stock operator's, which it may import.
    """
    folder = Path(tempfile.mkdtemp(prefix="faults-airflow-"))
    folder.chmod(0o755)
    images, stock_data = folder / "model_images", folder / "stock"
    shutil.copytree(Path(__file__).parent / "toy", images / "toy")
    (images / "models.yaml").write_text(yaml.safe_dump(a_registry(ticks), sort_keys=False))
    stock_data.mkdir(mode=0o777)
    image = image_reference(images, "toy")
    builder.images.build(path=str(images), dockerfile="toy/Dockerfile", tag=image, rm=True, forcerm=True)
    engine = OwnEngine()
    airflow = OwnAirflow(
        folder,
        {
            "DOCKER_HOST": engine.address,
            "NUMERAI_IMAGES_DIR": str(images),
            "NUMERAI_POOL": "default_pool",
            "FAULTS_IMAGE": image,
            "FAULTS_STOCK_DATA": str(stock_data),
        },
        instead,
    )
    try:
        engine.start()
        engine.load(image)
        airflow.start()
        with DownloadServer(an_archive()).serving() as server, Watch(engine) as watch:
            yield House(airflow, engine, server, watch)
    finally:
        airflow.end(signal.SIGKILL)
        engine.close()
        if not os.environ.get("FAULTS_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
