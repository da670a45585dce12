"""The self-test of an image: every operation runs on a few generated rows, or the image is not built.

An operation runs as in a pipeline run, with three tables: it must write predictions, and write the same bytes again
from its finished fit, without the other two tables. An operation that needs further inputs, or has other outputs,
defines in its module:

``SELF_TEST_PARAMETERS``
    further environment variables, e.g. to shorten it;
``prepare_self_test(storing)``
    writes its inputs into the run's directory beforehand, such as `write_fixture_inputs`;
``check_self_test(storing)``
    raises when its outputs are wrong; it replaces the check of the predictions. Its fit is in ``storing / "model"``.
"""

from __future__ import annotations

import csv
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from numerai_contract import operations, outputs
from numerai_contract.embeddings import LIVE, STANDARD, write_embedding
from numerai_contract.exits import ContractError
from numerai_contract.parameters import Parameters
from numerai_contract.predictions import HEADER
from numerai_contract.progress import Progress, duration
from numerai_contract.split import Split, write_split
from numerai_contract.tables import JoinedTable, Table
from numerai_contract.task import Task

if TYPE_CHECKING:
    from types import ModuleType

    from numpy.typing import NDArray

_FEATURES = 6
_TABLES = {
    "training": ([f"era{number}" for number in range(1, 13)], ["train"] * 12),
    "validation": ([f"era{number}" for number in range(13, 17)], ["validation"] * 4),
    "live": (["eraX", "eraX"], ["test", "live"]),
}
"""Table → its eras and their data types."""
_ROWS_OF_AN_ERA = 25


def run() -> None:
    """Run the self-test of every operation.

    Raises
    ------
    ContractError
        When predictions are missing or wrong. Exceptions of an operation are not caught.
    """
    names = operations.available()
    if not names:
        raise ContractError(f"{operations.folder()} has no operation: there is nothing to test.")
    progress = Progress()
    for name in names:
        began = time.monotonic()
        progress.log(f"self-test of {name}")
        with tempfile.TemporaryDirectory(prefix="self_test_") as directory:
            _run_operation(name, Path(directory))
        progress.log(f"self-test of {name}: passed in {duration(time.monotonic() - began)}")


def write_fixture_inputs(storing: Path, testing: str = "live") -> None:
    """Write a split and the ten t-SNE embeddings into a directory that has a run's three tables.

    Random data for tests only: a tenth of the training rows is the validation part, and the coordinates depend on a
    row's first two features.

    Parameters
    ----------
    storing
        The directory.
    testing
        Name of the table of the rows to predict, without its suffix.
    """
    random = np.random.default_rng(0)
    training = Table(storing / "training.parquet")
    validation, live = (Table(storing / f"{name}.parquet", training.feature_names) for name in ("validation", testing))
    similarity = random.random(len(training), dtype=np.float32)
    write_split(storing, training.ids, Split(similarity, similarity >= np.quantile(similarity, 0.9)), None)
    for embedding in STANDARD:
        for folder, table in ((storing, JoinedTable(training, validation)), (storing / LIVE, live)):
            features = np.nan_to_num(table.features()[:, :2].astype(np.float32))
            noise = random.normal(size=(len(features), embedding.dimensions))
            write_embedding(folder, embedding, table.ids, (20 * features + noise).astype(np.float32), None)


def _run_operation(name: str, storing: Path) -> None:
    module = operations.load(name)
    random = np.random.default_rng(0)
    for table, (eras, data_types) in _TABLES.items():
        _write_table(storing / f"{table}.parquet", random, eras, data_types)
    if hasattr(module, "prepare_self_test"):
        module.prepare_self_test(storing)
    predicting = storing / "predictions.csv"
    parameters = {
        "OPERATION": name,
        "TRAINING": str(storing / "training.parquet"),
        "VALIDATION": str(storing / "validation.parquet"),
        "TESTING": str(storing / "live.parquet"),
        "PREDICTING": str(predicting),
        "REPORTING": str(storing / "report.json"),
        "STORING": str(storing),
        "MODEL": str(storing / "model"),
        "TIME_LIMIT": "5",
        "TIME_LIMIT_PART": "2",
        **getattr(module, "SELF_TEST_PARAMETERS", {}),
    }
    _run_once(parameters)
    if hasattr(module, "check_self_test"):
        module.check_self_test(storing)
    else:
        _check_predictions(name, predicting, storing / "report.json")
    if hasattr(module, "load") or hasattr(module, "apply"):
        first = _take_outputs(predicting, module)
        for table in ("TRAINING", "VALIDATION"):
            Path(parameters.pop(table)).unlink()
        _run_once(parameters)
        if _take_outputs(predicting, module) != first:
            raise ContractError(f"self-test of {name}: its finished fit gives other outputs than its first run.")


def _run_once(parameters: dict[str, str]) -> None:
    task = Task(Parameters(parameters))
    task.check()
    operations.run(task)


def _take_outputs(predicting: Path, module: ModuleType) -> dict[str, bytes]:
    """Read the outputs about the rows of TESTING, and remove them."""
    live = predicting.parent / LIVE
    files = [predicting] if hasattr(module, "load") else [path for path in live.rglob("*") if path.is_file()]
    found = {str(file): file.read_bytes() for file in files}
    for file in files:
        file.unlink()
    return found


def _write_table(path: Path, random: np.random.Generator, eras: list[str], data_types: list[str]) -> None:
    """Write a table in which the target, 0 or 1, depends on the first two features."""
    rows = len(eras) * _ROWS_OF_AN_ERA
    features: NDArray[np.float32] = random.random((rows, _FEATURES)).astype(np.float32)
    chance = 1 / (1 + np.exp(-4 * (features[:, 0] - features[:, 1])))
    targets = (random.random(rows) < chance).astype(np.float32)
    types = np.repeat(data_types, _ROWS_OF_AN_ERA)
    targets[np.isin(types, ("test", "live"))] = np.nan
    columns = {
        "id": [f"{path.stem}{row:04}" for row in range(rows)],
        "era": np.repeat(eras, _ROWS_OF_AN_ERA),
        "data_type": types,
        **{f"feature{index + 1}": features[:, index] for index in range(_FEATURES)},
        "target": targets,
    }
    pq.write_table(pa.table(columns), path)


def _check_predictions(name: str, predicting: Path, reporting: Path) -> None:
    for path in (predicting, reporting):
        if not path.exists() or not outputs.verify(path):
            raise ContractError(f"self-test of {name}: it succeeded without writing {path.name} and its manifest.")
    with predicting.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    expected = len(_TABLES["live"][0]) * _ROWS_OF_AN_ERA
    if tuple(header) != HEADER or len(rows) != expected:
        raise ContractError(
            f"self-test of {name}: predictions have the header {header} and {len(rows):,} rows, "
            f"not {list(HEADER)} and {expected:,}."
        )
