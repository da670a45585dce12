"""The real images on a real engine, started the way the pipeline starts them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from docker.models.containers import Container
from docker.types import Mount
from numpy.typing import NDArray

# the image's own user, unless we are somebody: then what a container writes is ours to clean up
USER = "10001:10001" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"

INSIDE = Path(__file__).parent / "inside"


@dataclass
class Ended:
    """A container that ended, and what it left: read at once, since the next run of the operation writes over it."""

    code: int
    lines: list[str]
    directory: Path
    operation: str

    def __post_init__(self) -> None:
        self._predictions = _read(self.directory / "predictions" / f"{self.operation}.csv")
        self._report = _read(self.directory / "reports" / f"{self.operation}.json")

    @property
    def predictions_bytes(self) -> bytes:
        assert self._predictions is not None, self.lines
        return self._predictions

    @property
    def predictions(self) -> dict[str, float]:
        header, *rows = csv.reader(self.predictions_bytes.decode().splitlines())
        assert header == ["id", "prediction"]
        return {row[0]: float(row[1]) for row in rows}

    @property
    def report(self) -> dict[str, Any]:
        assert self._report is not None, self.lines
        report: dict[str, Any] = json.loads(self._report)
        return report


def _read(path: Path) -> bytes | None:
    return path.read_bytes() if path.is_file() else None


class Runner:
    """Starts operations of an image on the tables of a run's directory, which a container sees as ``/data``."""

    def __init__(self, engine: docker.DockerClient, image: str, directory: Path) -> None:
        self.engine, self.image, self.directory = engine, image, directory
        directory.mkdir()
        directory.chmod(0o777)
        self._containers: list[Container] = []

    def start(self, operation: str, /, options: dict[str, Any] | None = None, **environment: str) -> Container:
        """Start a container; `options` go to the engine in place of the usual ones."""
        usual: dict[str, Any] = {
            "environment": {
                "OPERATION": operation,
                "TRAINING": "/data/training.parquet",
                "TESTING": "/data/tournament.parquet",
                "PREDICTING": f"/data/predictions/{operation}.csv",
                "REPORTING": f"/data/reports/{operation}.json",
                "STORING": "/data",
                # the cores are those of the other workers of the suite as well
                "THREADS": "1",
                "MEMORY_LIMIT": "2048",
                **environment,
            },
            "user": USER,
            "read_only": True,
            "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 (the container's own, gone with it)
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "init": True,
            "mem_limit": "2g",
            "memswap_limit": "2g",
            "mounts": [Mount("/data", str(self.directory), type="bind")],
        }
        container = self.engine.containers.create(self.image, **usual | (options or {}))
        self._containers.append(container)
        container.start()
        return container

    def run(self, operation: str, options: dict[str, Any] | None = None, **environment: str) -> Ended:
        """Run an operation to its end."""
        return self.ended(self.start(operation, options, **environment), operation)

    def ended(self, container: Container, operation: str) -> Ended:
        code = container.wait(timeout=280)["StatusCode"]
        lines = container.logs().decode().splitlines()
        container.remove()
        self._containers.remove(container)
        return Ended(code, lines, self.directory, operation)

    def close(self) -> None:
        for container in self._containers:
            container.remove(force=True)


@pytest.fixture
def runner(
    request: pytest.FixtureRequest, engine: docker.DockerClient, model_image: Callable[[str], str], tmp_path: Path
) -> Iterator[Runner]:
    """Run operations of the image that a test module names in IMAGE."""
    made = Runner(engine, model_image(request.module.IMAGE), tmp_path / "run")
    yield made
    made.close()


def inside(runner: Runner, program: str) -> Any:
    """Run a program of `inside/` in the image, on the run's directory, and take the JSON that it prints last."""
    shutil.copy(INSIDE / program, runner.directory)
    ended = runner.run(program, {"entrypoint": "python", "command": [f"/data/{program}"]})
    assert ended.code == 0, ended.lines
    return json.loads(ended.lines[-1])


def good(ended: Ended) -> Ended:
    """Check what holds for every run that ends well."""
    assert ended.code == 0, ended.lines
    ids = pq.read_table(ended.directory / "tournament.parquet", columns=["id"])["id"].to_pylist()
    assert list(ended.predictions) == ids
    values = np.array(list(ended.predictions.values()))
    assert ((values > 0) & (values < 1)).all()
    assert values.std() > 1e-4
    for output in (f"predictions/{ended.operation}.csv", f"reports/{ended.operation}.json"):
        assert (ended.directory / f"{output}.manifest.json").is_file()
    assert not list(ended.directory.rglob(".*"))
    assert ended.lines[-1].startswith("done in ")
    return ended


def prepared(ended: Ended) -> Ended:
    """Check what holds for every preparation that ends well."""
    assert ended.code == 0, ended.lines
    assert (ended.directory / f"reports/{ended.operation}.json.manifest.json").is_file()
    assert not (ended.directory / "predictions" / f"{ended.operation}.csv").exists()
    assert not list(ended.directory.rglob(".*"))
    assert ended.lines[-1].startswith("done in ")
    return ended


Features = Callable[[np.random.Generator, int], NDArray[Any]]


def floats(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Features like those of 2017: 50 of them, between 0 and 1."""
    return random.random((rows, 50)).astype(np.float32)


def five_bins(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    """Features like today's small set: 42 of them, from 0 to 4."""
    return random.integers(0, 5, (rows, 42), dtype=np.int8)


def binary(chance: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Targets of 0 and 1."""
    return (random.random(len(chance)) < chance).astype(np.float32)


def graded(chance: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Targets in steps of a quarter, most of them one half."""
    noisy = chance + random.normal(0, 0.15, len(chance))
    return (np.clip(np.round(noisy * 4), 0, 4) / 4).astype(np.float32)


def spoilt(matrix: NDArray[Any]) -> NDArray[Any]:
    """Spoil features: one in twenty values missing, one feature constant, one without any value."""
    holed = matrix.copy()
    holed[np.random.default_rng(1).random(matrix.shape) < 0.05] = np.nan
    holed[:, 10] = 0.5
    holed[:, 11] = np.nan
    return holed


def write_tables(
    directory: Path,
    features: Features = floats,
    target: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float32]] = binary,
    *,
    shuffled: bool = False,
    spoil: Callable[[NDArray[Any]], NDArray[Any]] = lambda matrix: matrix,
) -> None:
    """Write a run's tables: 3,000 training rows of 60 eras, 800 validation rows, 200 of test and live.

    The target leans on the first four features; `shuffled` breaks that bond in the training table.
    """
    random = np.random.default_rng(5)
    training_eras = [f"era{number}" for number in range(1, 61) for _ in range(50)]
    tournament_eras = [f"era{number}" for number in range(70, 90) for _ in range(40)] + ["eraX"] * 200
    kinds = ["validation"] * 800 + ["test"] * 150 + ["live"] * 50
    for name, eras, data_types in (
        ("training", training_eras, ["train"] * 3_000),
        ("tournament", tournament_eras, kinds),
    ):
        matrix = features(random, len(eras))
        lean = matrix[:, :4] @ np.array([1, -1, 1, -1]) / (matrix.max() * 0.6)
        targets = target(1 / (1 + np.exp(-lean)), random)
        if name == "training" and shuffled:
            targets = random.permutation(targets)
        targets[np.isin(data_types, ["test", "live"])] = np.nan
        matrix = spoil(matrix)
        table = {
            "id": [f"{name[:2]}{row:05}" for row in range(len(eras))],
            "era": eras,
            "data_type": data_types,
            **{f"feature{column + 1}": matrix[:, column] for column in range(matrix.shape[1])},
            "target": targets,
        }
        pq.write_table(pa.table(table), directory / f"{name}.parquet")
