"""The real DAG on a real engine, with a stub model in place of the models."""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import random
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
import yaml
from airflow.sdk import DAG

from numerai_pipeline.core.settings import load_settings
from numerai_pipeline.models.images import image_reference
from tests.samples import ROOT, task

TOURNAMENT_IDS = [f"n{number:04d}" for number in range(60)]
VALIDATION_IDS, LIVE_IDS = TOURNAMENT_IDS[:40], TOURNAMENT_IDS[40:]
NEXT_LIVE_IDS = [f"m{number:04d}" for number in range(21)]
"""The live rows of a later round; the stub model identifies the tables by their length."""


@pytest.fixture(scope="session")
def airflow_database() -> None:
    from airflow.utils.db import initdb

    initdb()


@pytest.fixture(scope="session")
def stub_images(engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the image of the stub model under its name in the registry; return the folder of images."""
    directory = tmp_path_factory.mktemp("stub") / "model_images"
    shutil.copytree(Path(__file__).parent / "stub_model", directory / "stub_model")
    engine.images.build(
        path=str(directory),
        dockerfile="stub_model/Dockerfile",
        tag=image_reference(directory, "stub_model"),
        rm=True,
        forcerm=True,
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
    """The outcome of a run.

    Attributes
    ----------
    dag : DAG
        Its DAG.
    state : str
        The run's state.
    tasks : dict
        Task id → task instance.
    directory : Path
        The run's directory.
    output : str
        The log of all tasks, and everything printed.
    """

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
    """Run the whole DAG in this process, with the real models unless another folder of images is given."""

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
        with log_on_stdout():
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
    run_pipeline: Callable[..., Outcome], stub_images: Path, archive: Path, tmp_path: Path
) -> Callable[..., Outcome]:
    """Run the whole DAG on a small archive, with the stub model in place of the models."""

    def run(
        tasks: dict[str, dict[str, Any]],
        *,
        retries: int | None = 0,
        prepare: Callable[[DAG], None] | None = None,
        **conf: Any,
    ) -> Outcome:
        images = stub_registry(stub_images, tmp_path, tasks)
        return run_pipeline(images, retries, prepare, **{"source": "archive", "archive": str(archive), **conf})

    return run


@contextlib.contextmanager
def log_on_stdout() -> Iterator[None]:
    """Print the pipeline's log, which a task of a deployment has in its log."""
    handler, logger = logging.StreamHandler(sys.stdout), logging.getLogger("numerai_pipeline")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def stub_registry(stub_images: Path, tmp_path: Path, tasks: dict[str, dict[str, Any]]) -> Path:
    """Make a folder of images whose registry has these tasks, all of them of the stub model.

    They keep their model, unless an entry has ``keeps_model: false`` or reads CSV tables.
    """
    entries = {}
    for name, entry in tasks.items():
        ids = {"VALIDATION_IDS": ",".join(VALIDATION_IDS), "IDS": f"{','.join(LIVE_IDS)};{','.join(NEXT_LIVE_IDS)}"}
        parameters = {**ids, **entry.pop("parameters", {})}
        entry.setdefault("keeps_model", entry.get("tables") != "csv")
        entries[name] = task(image="stub_model", parameters=parameters, **entry)
    registry = {"images": {"stub_model": {"description": "A stub."}}, "tasks": entries}
    images = tmp_path / "model_images"
    shutil.copytree(stub_images, images, dirs_exist_ok=True)
    (images / "models.yaml").write_text(yaml.safe_dump(registry, sort_keys=False))
    return images


@pytest.fixture(autouse=True)
def no_leftover_containers(engine: docker.DockerClient, tmp_path: Path) -> Iterator[None]:
    """Fail a test that leaves a container of its deployment."""
    yield
    file = tmp_path / "data" / ".installation"
    if file.exists():
        label = f"numerai={file.read_text().strip()}"
        leftovers = engine.containers.list(all=True, filters={"label": label})
        for container in leftovers:
            container.remove(force=True)
        assert leftovers == []
