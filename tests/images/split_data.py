"""Data of the tests of models on the split, and their reference models.

A reference model is a program in `reference_models/` that computes an operation's predictions in the image on the same
tables by simple means, and prints their distance from the operation's predictions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from numerai_contract.self_test import write_fixture_inputs
from tests.images.conftest import Runner, write_tables

REFERENCE_MODELS = Path(__file__).parent / "reference_models"
# products this small take longer on several threads, and far longer on a busy machine
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def write_split_tables(directory: Path, *arguments: Any, **options: Any) -> None:
    """Write a run's tables as `write_tables` does, a split and the ten embeddings."""
    write_tables(directory, *arguments, **options)
    write_fixture_inputs(directory, "tournament")


def few_floats(random: np.random.Generator, rows: int) -> NDArray[np.float32]:
    """Ten features, few enough for slow reference models."""
    return random.random((rows, 10)).astype(np.float32)


def run_reference_model(runner: Runner, operation: str, **environment: str) -> list[float]:
    """Run an operation's reference model in the image, after the operation itself, and return the printed numbers."""
    program = (REFERENCE_MODELS / f"{operation}.py").read_text()
    finished = runner.run(operation, {"entrypoint": ["python", "-c", program]}, **ONE_THREAD, **environment)
    assert finished.code == 0, finished.lines
    return [float(number) for number in finished.lines[-1].split()]
