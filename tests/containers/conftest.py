"""The real DAG on a real engine, with a toy image in place of the models."""

from __future__ import annotations

import csv
import io
import random
import shutil
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from airflow.sdk import DAG

from numerai_pipeline.model_images import image_reference
from numerai_pipeline.settings import load_settings
from tests.samples import ROOT, task

TOURNAMENT_IDS = [f"n{number:04d}" for number in range(60)]


@pytest.fixture(scope="session")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def toy_images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the toy image under the name its registry gives it; return the folder of images."""
    directory = tmp_path_factory.mktemp("toys") / "model_images"
    shutil.copytree(Path(__file__).parent / "toy", directory / "toy")
    engine.images.build(
        path=str(directory), dockerfile="toy/Dockerfile", tag=image_reference(directory, "toy"), rm=True, forcerm=True
    )
    return directory


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """Make a small zip of the classic layout."""
    generator = random.Random(5)
    features = [f"feature{number}" for number in range(1, 6)]

    def table(ids: list[str], eras: list[str], kinds: list[str], *, targets: bool) -> str:
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["id", "era", "data_type", *features, "target"])
        for number, (row_id, era, kind) in enumerate(zip(ids, eras, kinds, strict=True)):
            known = targets or kind == "validation"
            row = [round(generator.random(), 5) for _ in features]
            writer.writerow([row_id, era, kind, *row, number % 2 if known else ""])
        return text.getvalue()

    training = [f"t{number:04d}" for number in range(80)]
    kinds = ["validation"] * 40 + ["test"] * 10 + ["live"] * 10
    eras = ["era9"] * 20 + ["era10"] * 20 + ["eraX"] * 20
    path = tmp_path / "numerai_dataset.zip"
    with zipfile.ZipFile(path, "w") as zipped:
        training_eras = [f"era{number // 10 + 1}" for number in range(80)]
        zipped.writestr("numerai_training_data.csv", table(training, training_eras, ["train"] * 80, targets=True))
        zipped.writestr("numerai_tournament_data.csv", table(TOURNAMENT_IDS, eras, kinds, targets=False))
    return path


@dataclass
class Outcome:
    """What became of a run."""

    dag: DAG
    state: str
    tasks: dict[str, Any]
    directory: Path
    output: str


@pytest.fixture
def run_pipeline(
    tmp_path: Path,
    airflow_database: None,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Callable[..., Outcome]:
    """Run the whole DAG in this process, with the real models unless told another folder of images."""

    def run(
        images: Path = ROOT / "model_images",
        retries: int | None = 0,
        prepare: Callable[[DAG], None] | None = None,
        **conf: Any,
    ) -> Outcome:
        from airflow.dag_processing.dagbag import DagBag

        monkeypatch.setenv("NUMERAI_IMAGES_DIR", str(images))
        monkeypatch.setenv("NUMERAI_POOL", "default_pool")
        load_settings.cache_clear()
        bag = DagBag(ROOT / "dags", bundle_name="dags-folder")
        assert bag.import_errors == {}
        dag = bag.dags["numerai_tournament"]
        if retries is not None:
            for each in dag.tasks:
                each.retries = retries
        if prepare is not None:
            prepare(dag)
        run = dag.test(run_conf=conf, logical_date=None)
        unpacked = run.get_task_instance("unzip").xcom_pull(task_ids="unzip")
        return Outcome(
            dag=dag,
            state=str(run.state),
            tasks={instance.task_id: instance for instance in run.get_task_instances()},
            directory=tmp_path / "data" / (unpacked or {}).get("directory", "nowhere"),
            output="".join(capfd.readouterr()),
        )

    return run


@pytest.fixture
def run_dag(
    run_pipeline: Callable[..., Outcome], toy_images: Path, archive: Path, tmp_path: Path
) -> Callable[..., Outcome]:
    """Run the whole DAG on a small archive, with the toy in place of the models."""

    def run(
        tasks: dict[str, dict[str, Any]],
        *,
        retries: int | None = 0,
        prepare: Callable[[DAG], None] | None = None,
        **conf: Any,
    ) -> Outcome:
        images = folder_of_toys(toy_images, tmp_path, tasks)
        return run_pipeline(images, retries, prepare, **{"source": "archive", "archive": str(archive), **conf})

    return run


def folder_of_toys(toy_images: Path, tmp_path: Path, tasks: dict[str, dict[str, Any]]) -> Path:
    """Make a folder of images whose registry has these tasks, all of them toys."""
    entries = {}
    for name, entry in tasks.items():
        parameters = {"IDS": ",".join(TOURNAMENT_IDS), **entry.pop("parameters", {})}
        entries[name] = task(image="toy", parameters=parameters, **entry)
    registry = {"images": {"toy": {"description": "A toy."}}, "tasks": entries}
    images = tmp_path / "model_images"
    shutil.copytree(toy_images, images, dirs_exist_ok=True)
    (images / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    return images


@pytest.fixture(autouse=True)
def no_container_stays(engine: docker.DockerClient, tmp_path: Path) -> Iterator[None]:
    """Whatever a test does, none of its containers is left."""
    yield
    file = tmp_path / "data" / ".installation"
    if file.exists():
        label = f"numerai={file.read_text().strip()}"
        left = engine.containers.list(all=True, filters={"label": label})
        for container in left:
            container.remove(force=True)
        assert left == []
