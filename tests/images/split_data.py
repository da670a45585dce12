"""Data of the tests of models on the split, and their reference models.

A reference model is a program in `reference_models/` that computes an operation's predictions in the image on the same
tables by simple means, and prints their distance from the operation's predictions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerai_contract.embeddings import STANDARD, write_embedding
from numerai_contract.split import Split, write_split
from numerai_contract.tables import JoinedTable, Table
from tests.images.conftest import Runner, write_tables

REFERENCE_MODELS = Path(__file__).parent / "reference_models"
# products this small take longer on several threads, and far longer on a busy machine
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def write_fixture_inputs(directory: Path) -> None:
    """Write a split and the ten embeddings for a training and a tournament table.

    As `numerai_contract.self_test.write_fixture_inputs`, but one file has all rows of an embedding.
    """
    random = np.random.default_rng(0)
    training = Table(directory / "training.parquet")
    both = JoinedTable(training, Table(directory / "tournament.parquet", training.feature_names))
    similarity = random.random(len(training), dtype=np.float32)
    write_split(directory, training.ids, Split(similarity, similarity >= np.quantile(similarity, 0.9)), None)
    for embedding in STANDARD:
        features = np.nan_to_num(both.features()[:, :2].astype(np.float32))
        noise = random.normal(size=(len(features), embedding.dimensions))
        write_embedding(directory, embedding, both.ids, (20 * features + noise).astype(np.float32), None)


def write_split_tables(directory: Path, *arguments: Any, **options: Any) -> None:
    """Write a run's tables as `write_tables` does, a split and the ten embeddings."""
    write_tables(directory, *arguments, **options)
    write_fixture_inputs(directory)


def few_floats(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Ten features, few enough for slow reference models."""
    return random.random((rows, 10)).astype(np.float32)


def run_reference_model(runner: Runner, operation: str, **environment: str) -> list[float]:
    """Run an operation's reference model in the image, after the operation itself, and return the printed numbers."""
    program = (REFERENCE_MODELS / f"{operation}.py").read_text()
    finished = runner.run(operation, {"entrypoint": ["python", "-c", program]}, **ONE_THREAD, **environment)
    assert finished.code == 0, finished.lines
    return [float(number) for number in finished.lines[-1].split()]
