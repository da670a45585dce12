"""The environment of the fault suite: Airflow, a Docker engine, an archive server, and a monitor of containers."""

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

from numerai_pipeline.models.images import image_reference
from tests.faults.airflow_process import AirflowProcess
from tests.faults.container_monitor import ContainerMonitor
from tests.faults.download_server import DownloadServer
from tests.faults.engine import EngineProcess
from tests.faults.scenario import FaultEnvironment
from tests.samples import task

IDS = [f"n{number:04d}" for number in range(200)]
VALIDATION_IDS, LIVE_IDS = IDS[:150], IDS[150:]
TICKS = 25


def classic_archive() -> bytes:
    """Make a zip of the classic layout whose unpacking takes a moment."""
    generator = random.Random(5)
    features = [f"feature{number}" for number in range(1, 21)]

    def table(ids: dict[str, list[str]], eras: int) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["id", "era", "data_type", *features, "target"])
        for kind, of_kind in ids.items():
            for number, row_id in enumerate(of_kind):
                values = [round(generator.random(), 5) for _ in features]
                era, target = ("eraX", "") if kind == "live" else (f"era{number % eras + 1}", number % 2)
                writer.writerow([row_id, era, kind, *values, target])
        return text.getvalue()

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as zipped:
        training = [f"t{number}" for number in range(20_000)]
        zipped.writestr("numerai_training_data.csv", table({"train": training}, 20))
        zipped.writestr("numerai_tournament_data.csv", table({"validation": VALIDATION_IDS, "live": LIVE_IDS}, 4))
    return content.getvalue()


def stub_registry(ticks: int, later_ticks: int) -> dict[str, object]:
    """Make a registry with one task of each kind.

    Parameters
    ----------
    ticks : int
        Tenths of a second that each fit takes.
    later_ticks : int
        Tenths of a second that the model takes to load its fit, and again to predict with it.
    """

    def parameters(**more: str) -> dict[str, str | int]:
        ids = {"IDS": ",".join(LIVE_IDS), "VALIDATION_IDS": ",".join(VALIDATION_IDS)}
        return {**ids, "TICKS": ticks, "LATER_TICKS": later_ticks, **more}

    return {
        "images": {"stub_model": {"description": "A stub that takes some time."}},
        "tasks": {
            "tsne": task(
                image="stub_model",
                keeps_model=True,
                predicts=False,
                outputs=["tsne/map.txt"],
                parameters=parameters(LEAVES="tsne/map.txt"),
            ),
            "tpot": task(image="stub_model", keeps_model=True, depends_on=["tsne"], parameters=parameters()),
            "evaluate": task(
                image="stub_model",
                keeps_model=True,
                predicts=False,
                depends_on=["models"],
                outputs=["scores.txt"],
                parameters=parameters(LEAVES="scores.txt"),
            ),
        },
    }


@contextmanager
def fault_environment(
    builder: docker.DockerClient, ticks: int = TICKS, dag_file: Path | None = None
) -> Iterator[FaultEnvironment]:
    """Build the stub model, and start the environment; everything is removed after the block.

    Parameters
    ----------
    builder : docker.DockerClient
        The engine that has the base image.
    ticks : int
        Duration of a fit, in tenths of a second.
    dag_file : Path, optional
        A DAG file that replaces the pipeline's and the stock operator's, and may import them.
    """
    folder = Path(tempfile.mkdtemp(prefix="faults-airflow-"))
    folder.chmod(0o755)
    images, stock_data = folder / "model_images", folder / "stock"
    shutil.copytree(Path(__file__).parent / "stub_model", images / "stub_model")
    # a comparison with other operators takes no other phases
    registry = stub_registry(ticks, ticks if dag_file is None else 0)
    (images / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    stock_data.mkdir(mode=0o777)
    image = image_reference(images, "stub_model")
    builder.images.build(path=str(images), dockerfile="stub_model/Dockerfile", tag=image, rm=True, forcerm=True)
    engine = EngineProcess()
    airflow = AirflowProcess(
        folder,
        {
            "DOCKER_HOST": engine.address,
            "NUMERAI_IMAGES_DIR": str(images),
            "FAULTS_IMAGE": image,
            "FAULTS_STOCK_DATA": str(stock_data),
        },
        dag_file,
    )
    try:
        engine.start()
        engine.load(image)
        airflow.start()
        with DownloadServer(classic_archive()).serving() as server, ContainerMonitor(engine) as monitor:
            yield FaultEnvironment(airflow, engine, server, monitor)
    finally:
        airflow.end(signal.SIGKILL)
        engine.close()
        if not os.environ.get("FAULTS_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)
