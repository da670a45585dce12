"""The real images on a real engine, started as the pipeline starts them."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import docker
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from docker.models.containers import Container
from docker.types import Mount
from numpy.typing import NDArray

# the image's own user for root, otherwise the user of the tests, who can then remove the files of a container
USER = "10001:10001" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"

# a fit on three tables, as the pipeline runs it; by default a run has two tables, and a temporary fit
THREE_TABLES = {
    "VALIDATION": "/data/validation.parquet",
    "TESTING": "/data/live.parquet",
    "MODEL": "/data/model",
}

PROGRAMS = Path(__file__).parent / "in_image"


@dataclass
class FinishedRun:
    """A finished container and its outputs, which are read at once, since the next run overwrites them."""

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
    """Starts operations of an image on the tables of a run's directory, which a container has as ``/data``."""

    def __init__(self, engine: docker.DockerClient, image: str, directory: Path) -> None:
        self.engine, self.image, self.directory = engine, image, directory
        directory.mkdir()
        directory.chmod(0o777)
        self._containers: list[Container] = []

    def start(self, operation: str, /, options: dict[str, Any] | None = None, **environment: str) -> Container:
        """Start a container; `options` replace the default options of the engine."""
        defaults: dict[str, Any] = {
            "environment": {
                "OPERATION": operation,
                "TRAINING": "/data/training.parquet",
                "TESTING": "/data/tournament.parquet",
                "PREDICTING": f"/data/predictions/{operation}.csv",
                "REPORTING": f"/data/reports/{operation}.json",
                "STORING": "/data",
                # the other workers of the suite need their cores
                "THREADS": "1",
                "MEMORY_LIMIT": "2048",
                **environment,
            },
            "user": USER,
            "read_only": True,
            "tmpfs": {"/tmp": "rw,nosuid,nodev,mode=1777"},  # noqa: S108 (the container's /tmp)
            "network_mode": "none",
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            "init": True,
            "mem_limit": "2g",
            "memswap_limit": "2g",
            "mounts": [Mount("/data", str(self.directory), type="bind")],
        }
        container = self.engine.containers.create(self.image, **defaults | (options or {}))
        self._containers.append(container)
        container.start()
        return container

    def run(self, operation: str, options: dict[str, Any] | None = None, **environment: str) -> FinishedRun:
        """Run an operation to its end."""
        return self.wait(self.start(operation, options, **environment), operation)

    def wait(self, container: Container, operation: str) -> FinishedRun:
        """Wait for the end of a container and remove it."""
        code = container.wait(timeout=280)["StatusCode"]
        lines = container.logs().decode().splitlines()
        container.remove()
        self._containers.remove(container)
        return FinishedRun(code, lines, self.directory, operation)

    def close(self) -> None:
        for container in self._containers:
            container.remove(force=True)


@pytest.fixture
def runner(
    request: pytest.FixtureRequest, engine: docker.DockerClient, model_image: Callable[[str], str], tmp_path: Path
) -> Iterator[Runner]:
    """Run operations of the image of the test's `model`, or of the image that the test module names in IMAGE."""
    parameters: dict[str, Any] = request.node.callspec.params if hasattr(request.node, "callspec") else {}
    image = parameters["model"].image if hasattr(parameters.get("model"), "image") else request.module.IMAGE
    found = Runner(engine, model_image(image), tmp_path / "run")
    yield found
    found.close()


def run_program(runner: Runner, program: str, **environment: str) -> Any:
    """Run a program of `in_image/` in the image, on the run's directory, and return the JSON that it prints last."""
    shutil.copy(PROGRAMS / program, runner.directory)
    finished = runner.run(program, {"entrypoint": "python", "command": [f"/data/{program}"]}, **environment)
    assert finished.code == 0, finished.lines
    return json.loads(finished.lines[-1])


class Planned(NamedTuple):
    """The plan of an operation, and what it was made for: its memory limit in MiB, and the sizes of the tables."""

    operation: str
    limit: int
    available: int
    of_features: int
    rows: int
    features: int
    memory: float


# training and validation rows of v5.3, and the numbers of features of its sets
TOURNAMENT_ROWS = (2_750_000, 4_110_000)
FEATURE_SETS = (42, 780, 3_555)


def plan_case(
    operation: str,
    limit: int,
    rows: Sequence[tuple[int, int]] = (TOURNAMENT_ROWS,),
    value_bytes: Sequence[int] = (1, 4),
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Describe plans of an operation for `run_plans`: one for all rows, feature sets and bytes of a value."""
    return {
        "operation": operation,
        "environment": {"THREADS": "1", **(environment or {}), "MEMORY_LIMIT": str(limit)},
        "rows": rows,
        "features": FEATURE_SETS,
        "value_bytes": value_bytes,
    }


def run_plans(runner: Runner, cases: Sequence[dict[str, Any]]) -> list[Planned]:
    """Compute the plans of cases in the image."""
    return [Planned(*plan) for plan in run_program(runner, "plans.py", PLANNED=json.dumps(cases))]


def assert_succeeded(finished: FinishedRun) -> FinishedRun:
    """Check the outputs and the log of every successful run of a model."""
    assert finished.code == 0, finished.lines
    ids = pq.read_table(finished.directory / "tournament.parquet", columns=["id"])["id"].to_pylist()
    assert list(finished.predictions) == ids
    values = np.array(list(finished.predictions.values()))
    assert ((values > 0) & (values < 1)).all()
    assert values.std() > 1e-4
    for output in (f"predictions/{finished.operation}.csv", f"reports/{finished.operation}.json"):
        assert (finished.directory / f"{output}.manifest.json").is_file()
    assert not list(finished.directory.rglob(".*"))
    assert finished.lines[-1].startswith("done in ")
    return finished


def assert_preprocessed(finished: FinishedRun) -> FinishedRun:
    """Check the outputs and the log of every successful run of an operation without predictions."""
    assert finished.code == 0, finished.lines
    assert (finished.directory / f"reports/{finished.operation}.json.manifest.json").is_file()
    assert not (finished.directory / "predictions" / f"{finished.operation}.csv").exists()
    assert not list(finished.directory.rglob(".*"))
    assert finished.lines[-1].startswith("done in ")
    return finished


Features = Callable[[np.random.Generator, int], NDArray[Any]]


def floats(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Features like those of 2017: 50 of them, between 0 and 1."""
    return random.random((rows, 50)).astype(np.float32)


def five_bins(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    """Features like the current small set: 42 of them, from 0 to 4."""
    return random.integers(0, 5, (rows, 42), dtype=np.int8)


def many_five_bins(random: np.random.Generator, rows: int) -> NDArray[np.int8]:
    """Features like the current medium set: 780 of them, from 0 to 4."""
    return random.integers(0, 5, (rows, 780), dtype=np.int8)


def binary(chance: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Targets of 0 and 1."""
    return (random.random(len(chance)) < chance).astype(np.float32)


def one_class(chance: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Targets of 1."""
    return binary(np.ones_like(chance), random)


def graded(chance: NDArray[np.float64], random: np.random.Generator) -> NDArray[np.float32]:
    """Targets in steps of a quarter, most of them one half."""
    noisy = chance + random.normal(0, 0.15, len(chance))
    return (np.clip(np.round(noisy * 4), 0, 4) / 4).astype(np.float32)


def with_missing_values(matrix: NDArray[Any]) -> NDArray[Any]:
    """Remove one value in twenty, make the second to last feature constant, and remove all values of the last."""
    changed = matrix.copy()
    changed[np.random.default_rng(1).random(matrix.shape) < 0.05] = np.nan
    changed[:, -2] = 0.5
    changed[:, -1] = np.nan
    return changed


def write_tables(
    directory: Path,
    features: Features = floats,
    target: Callable[[NDArray[np.float64], np.random.Generator], NDArray[np.float32]] = binary,
    *,
    shuffled: bool = False,
    modify: Callable[[NDArray[Any]], NDArray[Any]] = lambda matrix: matrix,
) -> None:
    """Write a run's tables: 3,000 training rows of 60 eras, 800 validation rows, 200 of test and live.

    The last 1,000 are one table, ``tournament.parquet``, and again two, ``validation.parquet`` and ``live.parquet``.

    The target depends on the first four features; `shuffled` removes this dependence from the training table. `modify`
    changes the features after the targets are drawn.
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
        logits = matrix[:, :4] @ np.array([1, -1, 1, -1]) / (matrix.max() * 0.6)
        targets = target(1 / (1 + np.exp(-logits)), random)
        if name == "training" and shuffled:
            targets = random.permutation(targets)
        targets[np.isin(data_types, ["test", "live"])] = np.nan
        matrix = modify(matrix)
        table = {
            "id": [f"{name[:2]}{row:05}" for row in range(len(eras))],
            "era": eras,
            "data_type": data_types,
            **{f"feature{column + 1}": matrix[:, column] for column in range(matrix.shape[1])},
            "target": targets,
        }
        pq.write_table(pa.table(table), directory / f"{name}.parquet")
    divide_tournament(directory)


def divide_tournament(directory: Path) -> None:
    """Write the validation rows of ``tournament.parquet`` as ``validation.parquet``, the others as ``live.parquet``."""
    table = pq.read_table(directory / "tournament.parquet")
    is_validation = pc.equal(table["data_type"], "validation")
    pq.write_table(table.filter(is_validation), directory / "validation.parquet")
    pq.write_table(table.filter(pc.invert(is_validation)), directory / "live.parquet")


def change_columns(path: Path, **columns: Any) -> None:
    """Replace columns of a table."""
    table = pq.read_table(path)
    for name, values in columns.items():
        column = values if isinstance(values, pa.Array) else pa.array(values)
        table = table.set_column(table.schema.get_field_index(name), name, column)
    pq.write_table(table, path)


def write_further_target(directory: Path, name: str) -> None:
    """Add a target to the tables of a fit, a noisy function of the fifth feature alone; unknown in some rows."""
    for table_name in ("training", "validation"):
        path = directory / f"{table_name}.parquet"
        table = pq.read_table(path)
        values = table["feature5"].to_numpy().astype(np.float64)
        random = np.random.default_rng(8)
        found = (values + random.normal(0, values.std(), len(values)) > values.mean()).astype(np.float32)
        found[random.random(len(found)) < 0.1] = np.nan
        pq.write_table(table.append_column(name, pa.array(found)), path)


def read_targets(directory: Path, name: str = "training") -> NDArray[np.float32]:
    """Read the targets of a table."""
    targets: NDArray[np.float32] = pq.read_table(directory / f"{name}.parquet", columns=["target"])["target"].to_numpy()
    return targets
