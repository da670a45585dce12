"""The self-test of an image: every operation runs on a few generated rows, or the image is not built.

An operation runs as in a pipeline run, with two tables, and must write predictions. An operation that needs further
inputs, or has other outputs, defines in its module:

``SELF_TEST_PARAMETERS``
    further environment variables, e.g. to shorten it;
``prepare_self_test(storing)``
    writes its inputs into the run's directory beforehand, such as `write_fixture_inputs`;
``check_self_test(storing)``
    raises when its outputs are wrong; it replaces the check of the predictions.
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
from numerai_contract.embeddings import STANDARD, write_embedding
from numerai_contract.exits import ModelFailureError
from numerai_contract.parameters import Parameters
from numerai_contract.predictions import HEADER
from numerai_contract.progress import Progress, duration
from numerai_contract.split import Split, write_split
from numerai_contract.tables import Table
from numerai_contract.task import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

_FEATURES = 6
_TRAINING_ERAS = tuple(f"era{number}" for number in range(1, 13))
_TOURNAMENT_ERAS = (*(f"era{number}" for number in range(13, 17)), "eraX", "eraX")
_ROWS_OF_AN_ERA = 25


def run() -> None:
    """Run the self-test of every operation.

    Raises
    ------
    ModelFailureError
        When predictions are missing or wrong. Exceptions of an operation are not caught.
    """
    names = operations.available()
    if not names:
        raise ModelFailureError(f"{operations.folder()} has no operation: there is nothing to test.")
    progress = Progress()
    for name in names:
        began = time.monotonic()
        progress.log(f"self-test of {name}")
        with tempfile.TemporaryDirectory(prefix="self_test_") as directory:
            _run_operation(name, Path(directory))
        progress.log(f"self-test of {name}: passed in {duration(time.monotonic() - began)}")


def write_fixture_inputs(storing: Path) -> None:
    """Write a split and the ten t-SNE embeddings into a directory that has a run's two tables.

    Random data for tests only: a tenth of the training rows is the validation part, and the coordinates depend on a
    row's first two features.
    """
    random = np.random.default_rng(0)
    training = Table(storing / "training.parquet")
    tournament = Table(storing / "tournament.parquet", training.feature_names)
    similarity = random.random(len(training), dtype=np.float32)
    write_split(storing, training.ids, Split(similarity, similarity >= np.quantile(similarity, 0.9)), None)
    ids = pa.chunked_array([*training.ids.chunks, *tournament.ids.chunks])
    features = np.nan_to_num(np.vstack([training.features()[:, :2], tournament.features()[:, :2]]).astype(np.float32))
    for embedding in STANDARD:
        noise = random.normal(size=(len(features), embedding.dimensions))
        write_embedding(storing, embedding, ids, (20 * features + noise).astype(np.float32), None)


def _run_operation(name: str, storing: Path) -> None:
    module = operations.load(name)
    training, testing = storing / "training.parquet", storing / "tournament.parquet"
    random = np.random.default_rng(0)
    _write_table(training, random, _TRAINING_ERAS, ["train"] * len(_TRAINING_ERAS))
    _write_table(testing, random, _TOURNAMENT_ERAS, [*["validation"] * 4, "test", "live"])
    if hasattr(module, "prepare_self_test"):
        module.prepare_self_test(storing)
    predicting, reporting = storing / "predictions.csv", storing / "report.json"
    parameters = {
        "OPERATION": name,
        "TRAINING": str(training),
        "TESTING": str(testing),
        "PREDICTING": str(predicting),
        "REPORTING": str(reporting),
        "STORING": str(storing),
        "TIME_LIMIT": "5",
        "TIME_LIMIT_PART": "2",
        **getattr(module, "SELF_TEST_PARAMETERS", {}),
    }
    task = Task(Parameters(parameters))
    task.check()
    operations.run(task)
    if hasattr(module, "check_self_test"):
        module.check_self_test(storing)
    else:
        _check_predictions(name, predicting, reporting)


def _write_table(path: Path, random: np.random.Generator, eras: tuple[str, ...], data_types: list[str]) -> None:
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
            raise ModelFailureError(f"self-test of {name}: it succeeded without writing {path.name} and its manifest.")
    with predicting.open(encoding="utf-8", newline="") as stream:
        header, *rows = csv.reader(stream)
    expected = len(_TOURNAMENT_ERAS) * _ROWS_OF_AN_ERA
    if tuple(header) != HEADER or len(rows) != expected:
        raise ModelFailureError(
            f"self-test of {name}: predictions have the header {header} and {len(rows):,} rows, "
            f"not {list(HEADER)} and {expected:,}."
        )
